/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoints of the driver, under events/coax in tracefs. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM coax

#if !defined(COAX_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define COAX_TRACE_H

#include <linux/tracepoint.h>

/* A request of the device for which something has to be done; flags are the ABI's ACCESS_*. */
TRACE_EVENT(page_request,
	TP_PROTO(u32 context, u64 va, u32 npages, u32 flags),
	TP_ARGS(context, va, npages, flags),
	TP_STRUCT__entry(
		__field(u32, context)
		__field(u64, va)
		__field(u32, npages)
		__field(u32, flags)
	),
	TP_fast_assign(
		__entry->context = context;
		__entry->va = va;
		__entry->npages = npages;
		__entry->flags = flags;
	),
	TP_printk("context=%u va=0x%llx npages=%u flags=0x%x",
		  __entry->context, __entry->va, __entry->npages, __entry->flags)
);

/* The answer to such a request, by its tag; code as in PCIe: 0 success, 1 invalid, 15 failure. */
TRACE_EVENT(group_response,
	TP_PROTO(u32 context, u32 tag, u32 code),
	TP_ARGS(context, tag, code),
	TP_STRUCT__entry(
		__field(u32, context)
		__field(u32, tag)
		__field(u32, code)
	),
	TP_fast_assign(
		__entry->context = context;
		__entry->tag = tag;
		__entry->code = code;
	),
	TP_printk("context=%u group=%u code=%u", __entry->context, __entry->tag, __entry->code)
);

/* Pages moved to device memory. */
TRACE_EVENT(to_device,
	TP_PROTO(u32 context, u64 va, u64 pages),
	TP_ARGS(context, va, pages),
	TP_STRUCT__entry(
		__field(u32, context)
		__field(u64, va)
		__field(u64, pages)
	),
	TP_fast_assign(
		__entry->context = context;
		__entry->va = va;
		__entry->pages = pages;
	),
	TP_printk("context=%u va=0x%llx pages=%llu", __entry->context, __entry->va, __entry->pages)
);

/* Pages moved back; cause: 0 CPU fault, 1 request, 2 eviction, 3 room for another user, 4 a lower limit. */
TRACE_EVENT(to_system,
	TP_PROTO(u64 va, u64 pages, u32 cause),
	TP_ARGS(va, pages, cause),
	TP_STRUCT__entry(
		__field(u64, va)
		__field(u64, pages)
		__field(u32, cause)
	),
	TP_fast_assign(
		__entry->va = va;
		__entry->pages = pages;
		__entry->cause = cause;
	),
	TP_printk("va=0x%llx pages=%llu cause=%u", __entry->va, __entry->pages, __entry->cause)
);

/* An invalidation sent to the device. */
TRACE_EVENT(invalidate,
	TP_PROTO(u32 context, u64 start, u64 end),
	TP_ARGS(context, start, end),
	TP_STRUCT__entry(
		__field(u32, context)
		__field(u64, start)
		__field(u64, end)
	),
	TP_fast_assign(
		__entry->context = context;
		__entry->start = start;
		__entry->end = end;
	),
	TP_printk("context=%u start=0x%llx end=0x%llx", __entry->context, __entry->start, __entry->end)
);

/* A command handed to the device. */
TRACE_EVENT(command,
	TP_PROTO(u32 context, u32 opcode, u64 id),
	TP_ARGS(context, opcode, id),
	TP_STRUCT__entry(
		__field(u32, context)
		__field(u32, opcode)
		__field(u64, id)
	),
	TP_fast_assign(
		__entry->context = context;
		__entry->opcode = opcode;
		__entry->id = id;
	),
	TP_printk("context=%u opcode=%u id=%llu", __entry->context, __entry->opcode, __entry->id)
);

/* A command the device has answered; status is the device ABI's STATUS_*. */
TRACE_EVENT(command_done,
	TP_PROTO(u32 context, u64 id, u32 status),
	TP_ARGS(context, id, status),
	TP_STRUCT__entry(
		__field(u32, context)
		__field(u64, id)
		__field(u32, status)
	),
	TP_fast_assign(
		__entry->context = context;
		__entry->id = id;
		__entry->status = status;
	),
	TP_printk("context=%u id=%llu status=%u", __entry->context, __entry->id, __entry->status)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

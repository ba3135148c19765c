// SPDX-License-Identifier: GPL-2.0
/* Defines the tracepoints and the functions by which Rust calls them. */
#define CREATE_TRACE_POINTS
#include "trace.h"

#include "sys/shim.h"

void coax_trace_page_request(u32 context, u64 va, u32 npages, u32 flags)
{
	trace_page_request(context, va, npages, flags);
}

void coax_trace_group_response(u32 context, u32 tag, u32 code)
{
	trace_group_response(context, tag, code);
}

void coax_trace_to_device(u32 context, u64 va, u64 pages)
{
	trace_to_device(context, va, pages);
}

void coax_trace_to_system(u64 va, u64 pages, u32 cause)
{
	trace_to_system(va, pages, cause);
}

void coax_trace_invalidate(u32 context, u64 start, u64 end)
{
	trace_invalidate(context, start, end);
}

void coax_trace_command(u32 context, u32 opcode, u64 id)
{
	trace_command(context, opcode, id);
}

void coax_trace_command_done(u32 context, u64 id, u32 status)
{
	trace_command_done(context, id, status);
}

/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * coax.h - the coax accelerator from C.
 *
 * Link with -lcoax. An open device is a context, bound to the memory of the process that opened
 * it; threads may share it, a child made by fork() opens its own. The device works on the
 * addresses of this process: any memory will do, however it was allocated.
 *
 *	struct coax *coax;
 *	unsigned char digest[32];
 *	int error = coax_open(NULL, &coax);
 *	if (!error)
 *		error = coax_sha256(coax, text, length, digest, NULL);
 *	if (error)
 *		fprintf(stderr, "%s\n", strerror(-error));
 *
 * Return values are 0 or a negative errno:
 *	-EINVAL		bad argument, found by library, driver or device
 *	-EFAULT		the device could not access an address: coax_completion.fault_va
 *	-ECANCELED	the context was closed or the device reset before the command was done
 *	-ETIMEDOUT	the command is not done yet and can still be collected
 *	-EBUSY		too many commands not collected, or the device is busy
 *	-EBADMSG	a list that does not end, a tree deeper than the limit
 *	-EOPNOTSUPP	unknown opcode
 *	-EPROTO, -EIO	driver, device and library do not understand each other
 *	-EPERM		another process than the opener's, or a privilege is missing
 *	-ENODEV		the device was removed
 *	-ENOTRECOVERABLE the library broke down
 *
 * The first part is the library, the second the ioctls under it, for those who want no library.
 */
#ifndef COAX_H
#define COAX_H

#include <linux/ioctl.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- Numbers ---------------------------------------------------------------------------- */

#define COAX_PAGE_SIZE 4096
#define COAX_COMMAND_ARGS 12
#define COAX_RESULT_BYTES 32

/* Opcodes. Addresses are virtual addresses of this process; arguments not named are zero. */
#define COAX_OP_NOP 0		/* nothing */
#define COAX_OP_COPY 1		/* dst, src, bytes; no overlap -> times it waited for src, dst */
#define COAX_OP_FILL 2		/* dst, bytes, 64-bit pattern, stored little-endian */
#define COAX_OP_SHA256 3	/* src, bytes -> digest */
#define COAX_OP_HISTOGRAM 4	/* src, bytes, dst of 256 uint64_t, overwritten */
#define COAX_OP_LIST_SUM 5	/* head, next offset, value offset, most nodes -> sum, nodes */
#define COAX_OP_TREE_SEARCH 6	/* root, key, key offset, left offset, right offset, deepest
				 * level -> node, levels */
#define COAX_OP_SGEMM 7		/* m, n, k, a, lda, b, ldb, c, ldc, alpha, beta, COAX_GEMM_* */
#define COAX_OP_DGEMM 8		/* as COAX_OP_SGEMM, in double precision */
#define COAX_OP_FETCH_ADD 9	/* va, bytes of a word (4, 8), addend, words, bytes from one to the
				 * next (0: the same again) -> first word before, words */
#define COAX_OP_COMPARE_SWAP 10 /* va, bytes of the word (4, 8), expected, desired -> word before */
#define COAX_OP_COPY_ROWS 11	/* dst, src, bytes of a row, rows, bytes from row to row of dst,
				 * the same of src */

/* Flags of matrix products; without COAX_GEMM_ROW_MAJOR matrices are column-major. */
#define COAX_GEMM_TRANS_A 1
#define COAX_GEMM_TRANS_B 2
#define COAX_GEMM_ROW_MAJOR 4

/* How a command ended. */
#define COAX_STATUS_OK 0
#define COAX_STATUS_BAD_MESSAGE 1
#define COAX_STATUS_UNKNOWN_OPCODE 2
#define COAX_STATUS_BAD_CONTEXT 3
#define COAX_STATUS_BAD_ARGUMENT 4
#define COAX_STATUS_FAULT 5
#define COAX_STATUS_RESPONSE_FAILURE 6
#define COAX_STATUS_ABORTED 7
#define COAX_STATUS_BAD_GPA 8
#define COAX_STATUS_BUSY 9
#define COAX_STATUS_BAD_DATA 10

#define COAX_ACCESS_READ 1
#define COAX_ACCESS_WRITE 2
#define COAX_ACCESS_ATOMIC 8 /* with both others */

/* What device memory is to the CPU. */
#define COAX_MODE_PRIVATE 0	/* an access brings the page back */
#define COAX_MODE_COHERENT 1	/* accessed in place */
#define COAX_MODE_NUMA 2	/* ordinary memory of a node, which the system too moves pages to */

#define COAX_NO_NODE UINT32_MAX /* no memory node is the device's memory */

/* Where a page is. */
#define COAX_RESIDENT_NONE 0	/* not mapped, never touched or swapped out */
#define COAX_RESIDENT_SYSTEM 1	/* anonymous, in system memory */
#define COAX_RESIDENT_DEVICE 2	/* in the device's memory */
#define COAX_RESIDENT_FILE 3	/* file-backed or shared, in system memory, used in place */

/* When pages move to the device. */
#define COAX_POLICY_ON_FAULT 0	 /* when it touches them, with present neighbours */
#define COAX_POLICY_ON_REQUEST 1 /* by coax_prefetch() only, or as the system moves them */
#define COAX_POLICY_NEVER 2	 /* never */
#define COAX_POLICY_CONTEXT 3	 /* coax_advise() only: as coax_set_policy() says */

#define COAX_MIGRATE_TO_DEVICE 1
#define COAX_MIGRATE_TO_SYSTEM 2

#define COAX_UAPI_VERSION 2
#define COAX_MAX_IN_FLIGHT 64		  /* commands of a context submitted, not collected */
#define COAX_MAX_ADVISED 1024		  /* ranges of a context with advice */
#define COAX_MAX_RANGE_BYTES (1ULL << 40) /* of one migrate, residency or advise call */

/* --- Structures of the ioctls, used by the library too ----------------------------------- */

/* Fields called reserved must be zero. Outputs are marked (out). */

struct coax_ioc_info {
	uint32_t version;	 /* (out) COAX_UAPI_VERSION */
	uint32_t mode;		 /* (out) COAX_MODE_* */
	uint32_t max_contexts;	 /* (out) contexts the device can hold */
	uint32_t command_queues; /* (out) */
	uint64_t device_pages;	 /* (out) device memory in pages */
	uint64_t free_pages;	 /* (out) of them not in use */
	uint64_t first_pfn;	 /* (out) page frame number of the first, 0 without CAP_SYS_ADMIN */
	uint32_t node;		 /* (out) memory node in COAX_MODE_NUMA, else COAX_NO_NODE */
	uint32_t policy;	 /* (out) first COAX_POLICY_* of a context, and the most eager one
				  * that it may have: as the driver was loaded */
};

struct coax_ioc_submit {
	uint32_t opcode; /* COAX_OP_* */
	uint32_t reserved;
	uint64_t arg[COAX_COMMAND_ARGS];
	uint64_t id; /* (out) for coax_ioc_wait */
};

/*
 * EINTR and ETIMEDOUT leave the command in place; EINVAL: no such command, or another thread
 * collects it.
 */
struct coax_ioc_wait {
	uint64_t id;
	uint32_t timeout_ms;	/* UINT32_MAX: without limit */
	uint32_t status;	/* (out) COAX_STATUS_* */
	uint64_t fault_va;	/* (out) address refused */
	uint32_t fault_access;	/* (out) COAX_ACCESS_* refused */
	uint32_t reserved;
	uint64_t bytes_done;	/* (out) */
	uint64_t page_requests; /* (out) page requests that the command waited for */
	uint8_t result[COAX_RESULT_BYTES]; /* (out) */
};

struct coax_ioc_migrate {
	uint64_t addr;	    /* page-aligned */
	uint64_t len;	    /* a multiple of the page size */
	uint32_t direction; /* COAX_MIGRATE_* */
	uint32_t pid;	    /* 0: own memory; another's needs CAP_SYS_ADMIN and CAP_SYS_PTRACE */
	uint64_t moved;	    /* (out) pages moved */
	uint64_t already;   /* (out) pages that were there before */
	uint64_t left;	    /* (out) pages that stayed */
};

struct coax_ioc_residency {
	uint64_t addr;	   /* page-aligned */
	uint64_t len;	   /* a multiple of the page size */
	uint64_t vector;   /* where to store a COAX_RESIDENT_* byte a page, or 0 */
	uint64_t pages[4]; /* (out) pages of each COAX_RESIDENT_* */
};

struct coax_ioc_policy {
	uint32_t policy;       /* COAX_POLICY_* */
	uint32_t fault_around; /* pages that move around a fault: a power of two, 1 ... 512, 0
				* leaves it as it is */
};

struct coax_ioc_advise {
	uint64_t addr;	       /* page-aligned */
	uint64_t len;	       /* a multiple of the page size */
	uint32_t policy;       /* COAX_POLICY_* */
	uint32_t fault_around; /* a power of two, 1 ... 512, or 0: as many as the context's */
};

struct coax_ioc_policy_at {
	uint64_t addr;
	uint64_t end;	       /* (out) first address after it of which something else is said */
	uint32_t policy;       /* (out) COAX_POLICY_*, never COAX_POLICY_CONTEXT */
	uint32_t fault_around; /* (out) */
	uint32_t advised;      /* (out) 1 if there is advice, 0 if both are the context's */
	uint32_t reserved;
};

/* Counters since the driver was loaded; context_*: since the device was opened. */
struct coax_ioc_stats {
	uint64_t context_page_requests;
	uint64_t context_to_device; /* pages moved to device memory */
	uint64_t context_commands;
	uint64_t context_invalidations;
	uint64_t contexts; /* open now */
	uint64_t page_requests;
	uint64_t translation_requests;
	uint64_t responses_success;
	uint64_t responses_invalid;
	uint64_t responses_failure;
	uint64_t invalidations;
	uint64_t to_device_fault;    /* pages moved because the device touched them */
	uint64_t to_device_request;  /* on request */
	uint64_t to_system_fault;    /* brought back because a CPU touched them */
	uint64_t to_system_request;  /* on request */
	uint64_t to_system_evict;    /* by reset, removal or eviction */
	uint64_t device_full;	     /* could not move: device memory was full */
	uint64_t device_errors;	     /* messages of the device that made no sense */
	uint64_t first_migration_ns; /* boot to first page in device memory, 0 if none */
	uint64_t device[19];	     /* counters of the device in the order of its ABI; zero if it does
				      * not answer */
};

/* --- The library ------------------------------------------------------------------------- */

struct coax; /* an open device */

struct coax_command {
	uint32_t opcode; /* COAX_OP_* */
	uint32_t reserved;
	uint64_t arg[COAX_COMMAND_ARGS];
};

/* How a command ended. Where a call takes one, NULL will do. Zero if it never started. */
struct coax_completion {
	uint32_t status;	/* COAX_STATUS_*; coax_reason() has the words */
	uint32_t fault_access;	/* COAX_ACCESS_* refused */
	uint64_t fault_va;	/* address refused */
	uint64_t bytes_done;	/* nothing beyond them was written */
	uint64_t page_requests; /* page requests that the command waited for */
	uint8_t result[COAX_RESULT_BYTES];
};

struct coax_list_layout {
	uint64_t next;	    /* offset of the pointer to the next node; null ends the list */
	uint64_t value;	    /* offset of the uint64_t value */
	uint64_t max_nodes; /* a longer list gives -EBADMSG */
};

struct coax_list_result {
	uint64_t sum; /* wrapping */
	uint64_t nodes;
};

struct coax_tree_layout {
	uint64_t key;	    /* offset of the uint64_t key */
	uint64_t left;	    /* offset of the pointer to smaller keys, or null */
	uint64_t right;	    /* offset of the pointer to greater keys, or null */
	uint64_t max_depth; /* a deeper search gives -EBADMSG */
};

struct coax_tree_result {
	uint64_t node; /* address, 0: no such key */
	uint64_t levels;
};

/* C = alpha op(A) op(B) + beta C: op(A) is m x k, op(B) k x n; ld* in elements. */
struct coax_gemm {
	uint64_t m, n, k;
	uint64_t lda, ldb, ldc;
	uint64_t flags; /* COAX_GEMM_* */
};

struct coax_migrated {
	uint64_t moved;	  /* pages moved */
	uint64_t already; /* pages that were there before */
	uint64_t left;	  /* pages that stayed: untouched, file-backed, pinned, no memory */
};

/* Opens a device, the first one if path is NULL. */
int coax_open(const char *path, struct coax **coax);
/* Closes it. What is in flight is aborted. NULL will do. */
void coax_close(struct coax *coax);
/* File descriptor for poll(): POLLIN says that a command is done and not collected. */
int coax_fd(const struct coax *coax);
/* The reason of a COAX_STATUS_* in words. */
const char *coax_reason(uint32_t status);

int coax_info(const struct coax *coax, struct coax_ioc_info *info);
int coax_stats(const struct coax *coax, struct coax_ioc_stats *stats);
/* Takes the device out of service and back; needs CAP_SYS_ADMIN. */
int coax_reset(const struct coax *coax);

/*
 * Starts a command. Until it was collected the memory that it names must stay allocated, what it
 * reads must not be written and what it writes must not be accessed; words that it changes
 * atomically may be accessed by atomic operations.
 */
int coax_submit(const struct coax *coax, const struct coax_command *command, uint64_t *id);
/* Collects a command; a negative timeout waits without limit. */
int coax_wait(const struct coax *coax, uint64_t id, int timeout_ms,
	      struct coax_completion *completion);
/* Both at once. */
int coax_run(const struct coax *coax, const struct coax_command *command,
	     struct coax_completion *completion);

/* Commands run to their end. */
int coax_copy(const struct coax *coax, void *dst, const void *src, size_t bytes,
	      struct coax_completion *completion);
int coax_fill(const struct coax *coax, void *dst, size_t bytes, uint64_t pattern,
	      struct coax_completion *completion);
int coax_sha256(const struct coax *coax, const void *src, size_t bytes, uint8_t digest[32],
		struct coax_completion *completion);
int coax_histogram(const struct coax *coax, const void *src, size_t bytes, uint64_t counts[256],
		   struct coax_completion *completion);
int coax_list_sum(const struct coax *coax, const void *head,
		  const struct coax_list_layout *layout, struct coax_list_result *found,
		  struct coax_completion *completion);
int coax_tree_search(const struct coax *coax, const void *root, uint64_t key,
		     const struct coax_tree_layout *layout, struct coax_tree_result *found,
		     struct coax_completion *completion);
int coax_sgemm(const struct coax *coax, const struct coax_gemm *gemm, float alpha,
	       const float *a, const float *b, float beta, float *c,
	       struct coax_completion *completion);
int coax_dgemm(const struct coax *coax, const struct coax_gemm *gemm, double alpha,
	       const double *a, const double *b, double beta, double *c,
	       struct coax_completion *completion);

/*
 * Atomic operations on a word, naturally aligned and little-endian. They are sequentially
 * consistent, and atomic towards CPUs, other commands and other contexts. *before, unless NULL,
 * gets the value before; a compare and swap has swapped if that is the value expected.
 */
int coax_fetch_add64(const struct coax *coax, uint64_t *word, uint64_t addend, uint64_t *before,
		     struct coax_completion *completion);
int coax_fetch_add32(const struct coax *coax, uint32_t *word, uint32_t addend, uint32_t *before,
		     struct coax_completion *completion);
int coax_compare_swap64(const struct coax *coax, uint64_t *word, uint64_t expected,
			uint64_t desired, uint64_t *before, struct coax_completion *completion);
int coax_compare_swap32(const struct coax *coax, uint32_t *word, uint32_t expected,
			uint32_t desired, uint32_t *before, struct coax_completion *completion);

/*
 * Move the pages on which a range lies. Partial success is normal; the counts tell. In
 * COAX_MODE_NUMA they do so by move_pages(2), files and shared memory included.
 */
int coax_prefetch(const struct coax *coax, const void *start, size_t bytes,
		  struct coax_migrated *migrated);
int coax_evict(const struct coax *coax, const void *start, size_t bytes,
	       struct coax_migrated *migrated);
/*
 * Where the pages are on which a range lies, touching none: a COAX_RESIDENT_* byte for each in
 * vector, the number of each kind in pages. Either may be NULL.
 */
int coax_residency(const struct coax *coax, const void *start, size_t bytes, uint8_t *vector,
		   uint64_t pages[4]);
/* COAX_POLICY_*, and how many pages move around a fault (0 leaves that as it is). */
int coax_set_policy(const struct coax *coax, uint32_t policy, uint32_t fault_around);
/*
 * The same for the pages on which a range lies, in place of the context's policy and of all advice
 * given before for any of them; COAX_POLICY_CONTEXT and 0 take advice back. Pages stay where they
 * are. Advice ends when the memory is unmapped, and does not go along where mremap() moves it.
 * -EFAULT: part of the range is not mapped; -EPERM: the driver was loaded with a less eager policy;
 * -EACCES: COAX_POLICY_ON_FAULT in COAX_MODE_NUMA, where cpuset.mems lacks the node; -ENOSPC: more than
 * COAX_MAX_ADVISED ranges.
 * On any error all advice is as it was.
 */
int coax_advise(const struct coax *coax, const void *start, size_t bytes, uint32_t policy,
		uint32_t fault_around);
/* Which policy holds at an address, and how far. */
int coax_policy_at(const struct coax *coax, const void *at, struct coax_ioc_policy_at *found);

/* --- The ioctls -------------------------------------------------------------------------- */

#define COAX_IOC_MAGIC 0xC0
#define COAX_IOC_INFO _IOR(COAX_IOC_MAGIC, 0, struct coax_ioc_info)
#define COAX_IOC_SUBMIT _IOWR(COAX_IOC_MAGIC, 1, struct coax_ioc_submit)
#define COAX_IOC_WAIT _IOWR(COAX_IOC_MAGIC, 2, struct coax_ioc_wait)
#define COAX_IOC_MIGRATE _IOWR(COAX_IOC_MAGIC, 3, struct coax_ioc_migrate)
#define COAX_IOC_RESIDENCY _IOWR(COAX_IOC_MAGIC, 4, struct coax_ioc_residency)
#define COAX_IOC_POLICY _IOW(COAX_IOC_MAGIC, 5, struct coax_ioc_policy)
#define COAX_IOC_STATS _IOR(COAX_IOC_MAGIC, 6, struct coax_ioc_stats)
#define COAX_IOC_RESET _IO(COAX_IOC_MAGIC, 7)
#define COAX_IOC_ADVISE _IOW(COAX_IOC_MAGIC, 8, struct coax_ioc_advise)
#define COAX_IOC_POLICY_AT _IOWR(COAX_IOC_MAGIC, 9, struct coax_ioc_policy_at)

#ifdef __cplusplus
}
#endif

#endif

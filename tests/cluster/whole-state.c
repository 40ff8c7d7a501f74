/*
 * whole-state - lets User-mode Linux run on processors with AMX
 *
 * Linux 6.1 as User-mode Linux keeps 2696 bytes of floating-point state for each process:
 * what there is with AVX-512 and protection keys. On a processor with AMX the host has 11,008,
 * and takes it as a whole only (xstateregs_set in arch/x86/kernel/fpu/regset.c: EFAULT), so the
 * machine panics before its first program runs. Preloaded into linux.uml, this hands over the
 * rest as well: in the state in which it is before a program has used it. Programs in the
 * machine cannot have used it, since that takes a permission of the host, by arch_prctl(2).
 *
 * Where the host has no more than that, nothing is changed.
 */

#define _GNU_SOURCE

#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Where the header of the state begins, with a bit for each part that is not as it was at first
 * (Intel's manual, volume 1, 13.4.2). */
#define XSTATE_BV 512
/* Of those parts, what fits into 2696 bytes: up to protection keys. */
#define KNOWN_PARTS 0x3ffULL

/* Too large for the stacks of linux.uml, and used by one thread only. */
static char whole[64 * 1024];
static size_t whole_size;

static long call(enum __ptrace_request request, pid_t pid, void *addr, void *data)
{
	return syscall(SYS_ptrace, request, pid, addr, data);
}

static long set_state(pid_t pid, void *addr, struct iovec *part)
{
	if (whole_size == 0) {
		struct iovec all = { whole, sizeof whole };
		if (call(PTRACE_GETREGSET, pid, addr, &all) == 0)
			whole_size = all.iov_len;
	}
	if (part->iov_len >= whole_size || part->iov_len < XSTATE_BV + sizeof(uint64_t))
		return call(PTRACE_SETREGSET, pid, addr, part);
	memcpy(whole, part->iov_base, part->iov_len);
	memset(whole + part->iov_len, 0, whole_size - part->iov_len);
	uint64_t parts;
	memcpy(&parts, whole + XSTATE_BV, sizeof parts);
	parts &= KNOWN_PARTS;
	memcpy(whole + XSTATE_BV, &parts, sizeof parts);
	struct iovec all = { whole, whole_size };
	return call(PTRACE_SETREGSET, pid, addr, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list args;
	va_start(args, request);
	pid_t pid = va_arg(args, pid_t);
	void *addr = va_arg(args, void *);
	void *data = va_arg(args, void *);
	va_end(args);

	if (request == PTRACE_SETREGSET && (uintptr_t)addr == NT_X86_XSTATE)
		return set_state(pid, addr, data);
	if (request != PTRACE_PEEKTEXT && request != PTRACE_PEEKDATA && request != PTRACE_PEEKUSER)
		return call(request, pid, addr, data);
	/* The C library gives what was read as the result. */
	long word;
	if (call(request, pid, addr, &word) < 0)
		return -1;
	errno = 0;
	return word;
}

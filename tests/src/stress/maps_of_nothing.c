// SPDX-License-Identifier: GPL-2.0-only
/*
 * A reader of /proc/PID/maps meets a process that unmaps all of its memory at once.
 *
 * Reader and process share a CPU. The process has real-time priority: its timer interrupts the reader, which
 * holds the lock of one mapping; munmap() waits for that lock, and gets the CPU in the moment in which the
 * reader gives it up, before the reader looks for the next mapping. The tree of mappings is empty by then.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void pin(int cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set)) { perror("sched_setaffinity"); exit(2); }
}

static void child(int nvmas, long ns)
{
	struct sched_param param = { .sched_priority = 1 };
	struct timespec wait = { .tv_nsec = ns };

	for (int i = 0; i < nvmas; i++)
		mmap(NULL, 4096, i & 1 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sched_setscheduler(0, SCHED_FIFO, &param)) { perror("sched_setscheduler"); exit(2); }
	nanosleep(&wait, NULL);
	munmap(NULL, 0x7ffffffff000);
	/* Nothing is left to return to. */
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 2000;
	static char buf[65536];

	setbuf(stdout, NULL);
	pin(0);
	for (int i = 0; i < rounds; i++) {
		char path[64];
		int status;
		pid_t pid = fork();

		if (!pid) {
			child(400, 500000 + rand() % 3000000);
			_exit(3);
		}
		snprintf(path, sizeof(path), "/proc/%d/maps", pid);
		for (;;) {
			int fd = open(path, O_RDONLY);
			if (fd < 0) break;
			while (read(fd, buf, sizeof(buf)) > 0) ;
			close(fd);
			if (waitpid(pid, &status, WNOHANG) == pid) break;
		}
		if (i % 100 == 0) printf("round %d, status %#x\n", i, status);
	}
	puts("done");
	return 0;
}

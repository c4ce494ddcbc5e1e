/*
 * What is measured by `cargo xtask vm icount`, timed from within by the CPU time it has had: the guest has one CPU, and
 * what tracer itself does there meanwhile is not the load's. Each line is a name and nanoseconds an operation: the
 * median of some rounds.
 *
 *   load loops OPENS GETPPIDS     waits for a line on standard input, then `open X` and `getppid X`
 *   load nothing                  ends
 *   load run ROUNDS COMMAND...    `run X` for the command with all its children, and `wall X` by the clock
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 7

static double now(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void tell(const char *name, double *rounds, int count)
{
	qsort(rounds, count, sizeof *rounds, ascending);
	printf("%s %.1f\n", name, rounds[count / 2]);
	fflush(stdout);
}

static void open_and_close(void)
{
	int fd = openat(AT_FDCWD, "/etc/hostname", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		exit(3);
	close(fd);
}

static void ask_for_parent(void)
{
	syscall(SYS_getppid);
}

static void loop(const char *name, long count, void (*operation)(void))
{
	double rounds[ROUNDS];
	/* The first is for the caches. */
	for (int round = -1; round < ROUNDS; round++) {
		double begin = now(CLOCK_PROCESS_CPUTIME_ID);
		for (long i = 0; i < count; i++)
			operation();
		double took = now(CLOCK_PROCESS_CPUTIME_ID) - begin;
		if (round >= 0)
			rounds[round] = took / count;
	}
	tell(name, rounds, ROUNDS);
}

static double of_children(void)
{
	struct rusage usage;
	getrusage(RUSAGE_CHILDREN, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e9 +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e3;
}

static void run(int count, char **command)
{
	double cpu[count], wall[count];
	for (int round = -1; round < count; round++) {
		double cpu_begin = of_children(), wall_begin = now(CLOCK_MONOTONIC);
		pid_t child = fork();
		if (child == 0) {
			execvp(command[0], command);
			_exit(127);
		}
		int status;
		if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
			exit(3);
		if (round >= 0) {
			cpu[round] = of_children() - cpu_begin;
			wall[round] = now(CLOCK_MONOTONIC) - wall_begin;
		}
	}
	tell("run", cpu, count);
	tell("wall", wall, count);
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "loops") == 0) {
		while (getchar() != '\n')
			if (feof(stdin))
				return 2;
		loop("open", atol(argv[2]), open_and_close);
		loop("getppid", atol(argv[3]), ask_for_parent);
		return 0;
	}
	if (argc == 2 && strcmp(argv[1], "nothing") == 0)
		return 0;
	if (argc > 3 && strcmp(argv[1], "run") == 0 && atoi(argv[2]) > 0) {
		run(atoi(argv[2]), argv + 3);
		return 0;
	}
	fprintf(stderr, "usage: load loops OPENS GETPPIDS | load nothing | load run ROUNDS COMMAND...\n");
	return 2;
}

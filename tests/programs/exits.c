/*
 * Processes that exit in every way there is.
 *
 * Prints for each its label, its pid, and the status that wait(2) gave: what `tracer trace exit` has to agree with.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void report(const char *label, pid_t pid)
{
	int status = 0;

	waitpid(pid, &status, 0);
	printf("%s %d %d\n", label, pid, status);
	fflush(stdout);
}

static void core_limit(rlim_t limit)
{
	struct rlimit limits = { limit, limit };

	setrlimit(RLIMIT_CORE, &limits);
}

static void nap(void)
{
	struct timespec time = { 0, 20 * 1000 * 1000 };

	nanosleep(&time, NULL);
}

static void *exits_later(void *code)
{
	nap();
	syscall(SYS_exit, (int)(long)code);
	return NULL;
}

static void *ends_the_group(void *code)
{
	nap();
	syscall(SYS_exit_group, (int)(long)code);
	return NULL;
}

static void *executes(void *path)
{
	char *argv[] = { path, "exit", "6", NULL };

	nap();
	execv(path, argv);
	_exit(99);
}

/* What a process does, in place of returning. */
static void act(const char *label, const char *self)
{
	pthread_t thread;

	core_limit(0);
	if (!strcmp(label, "zero"))
		_exit(0);
	if (!strcmp(label, "seven"))
		_exit(7);
	if (!strcmp(label, "all-bits"))
		_exit(255);
	if (!strcmp(label, "kill"))
		raise(SIGKILL);
	if (!strcmp(label, "term"))
		raise(SIGTERM);
	if (!strcmp(label, "real-time"))
		raise(SIGRTMIN + 3);
	if (!strcmp(label, "abort"))
		abort();
	if (!strcmp(label, "core")) {
		core_limit(RLIM_INFINITY);
		abort();
	}
	if (!strcmp(label, "leader-first")) {
		/* The process exits with its last thread, whichever that is. */
		pthread_create(&thread, NULL, exits_later, (void *)4L);
		syscall(SYS_exit, 3);
	}
	if (!strcmp(label, "group")) {
		pthread_create(&thread, NULL, ends_the_group, (void *)5L);
		syscall(SYS_exit, 3);
	}
	if (!strcmp(label, "thread-executes")) {
		/* Its leader is replaced: no process ends by that. */
		pthread_create(&thread, NULL, executes, (void *)self);
		for (;;)
			pause();
	}
	_exit(98);
}

static const char *const LABELS[] = { "zero", "seven", "all-bits", "kill", "term", "real-time", "abort", "core",
				      "leader-first", "group", "thread-executes" };

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "exit"))
		return atoi(argv[2]);
	if (argc == 2 && !strcmp(argv[1], "memory")) {
		pid_t pid = fork();

		if (pid == 0) {
			for (;;)
				memset(malloc(1 << 20), 1, 1 << 20);
		}
		report("memory", pid);
		return 0;
	}
	for (size_t i = 0; i < sizeof LABELS / sizeof *LABELS; i++) {
		pid_t pid = fork();

		if (pid == 0)
			act(LABELS[i], argv[0]);
		report(LABELS[i], pid);
	}
	return 9;
}

/* Executes programs as no shell can: arguments that are no text, programs that cannot run. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char *none[] = { NULL };
/* An address where nothing is mapped; volatile, lest the compiler sees that. */
static volatile unsigned long nowhere = 8;

/* In a child: returns here whether it worked or not. Prints errno of the failed ones. */
static void run(const char *label, const char *path, char *const argv[])
{
	pid_t child = fork();

	if (child == 0) {
		/*
		 * On the heap, as programs have them. The text of this program itself may not be in
		 * memory yet: where execve fails before it has read it, nobody else can.
		 */
		char *copy[16] = { NULL };

		if (argv != (char **)nowhere) {
			for (int i = 0; argv[i]; i++)
				copy[i] = strdup(argv[i]);
			argv = copy;
		}
		execve(path, argv, none);
		printf("%s %d\n", label, errno);
		fflush(stdout);
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

static void odd(void)
{
	run("odd", "/bin/true",
	    (char *[]){ "true", "", "two words", " ", "a\nb\tc", "quo\"te\\", "\033[31mred", "\303\251", "", NULL });
	run("not-utf8", "/bin/true", (char *[]){ "true", "\xff\xfe-x", "plain", NULL });
	/* Since 5.18 the kernel puts an empty string where there is no argument at all. */
	run("none", "/bin/true", none);
}

static void lengths(void)
{
	static char big[100 * 1024];
	char eight[8192];

	/* With the name, the NULs and the one letter: 8,191 and 8,192 bytes, then 8,193. */
	for (int length = 8183; length <= 8185; length++) {
		memset(eight, 'e', length);
		eight[length] = 0;
		run("eight", "/bin/true", (char *[]){ "true", "L", eight, NULL });
	}
	memset(big, 'b', sizeof(big) - 1);
	run("big", "/bin/true", (char *[]){ "true", "first", big, "last", NULL });
}

static void failing(void)
{
	static char big[10 * 1024];

	run("missing", "/bin/missing", (char *[]){ "missing", "one", "", "two words", NULL });
	run("no-permission", "/etc/hostname", (char *[]){ "no-permission", NULL });
	run("no-program", "/bin/garbage", (char *[]){ "no-program", NULL });
	run("no-interpreter", "/bin/script", (char *[]){ "no-interpreter", "arg", NULL });
	run("directory", "/bin", (char *[]){ "directory", NULL });
	run("not-directory", "/etc/hostname/x", (char *[]){ "not-directory", NULL });
	memset(big, 'f', sizeof(big) - 1);
	run("failing-big", "/bin/missing", (char *[]){ "failing-big", big, "last", NULL });
	run("path-fault", (char *)nowhere, (char *[]){ "path-fault", NULL });
	run("args-fault", "/bin/true", (char **)nowhere);
}

/* So many children, each of which fails to execute one program and then executes another. */
static void many(int count)
{
	for (int i = 0; i < count; i++) {
		pid_t child = fork();

		if (child == 0) {
			execve("/bin/missing", (char *[]){ "missing", NULL }, none);
			execve("/bin/true", (char *[]){ "true", NULL }, none);
			_exit(1);
		}
		waitpid(child, NULL, 0);
	}
}

static void by_descriptor(void)
{
	pid_t child = fork();

	if (child == 0) {
		int fd = open("/bin/true", O_PATH);

		syscall(SYS_execveat, fd, "", (char *[]){ "true", "by-descriptor", NULL }, none, AT_EMPTY_PATH);
		_exit(1);
	}
	waitpid(child, NULL, 0);
	child = fork();
	if (child == 0) {
		int fd = open("/bin", O_PATH);

		syscall(SYS_execveat, fd, "absent", (char *[]){ "absent", "by-directory", NULL }, none, 0);
		_exit(1);
	}
	waitpid(child, NULL, 0);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "odd"))
		odd();
	else if (argc > 1 && !strcmp(argv[1], "lengths"))
		lengths();
	else if (argc > 1 && !strcmp(argv[1], "failing"))
		failing();
	else if (argc > 1 && !strcmp(argv[1], "by-descriptor"))
		by_descriptor();
	else if (argc > 2 && !strcmp(argv[1], "many")) {
		many(atoi(argv[2]));
		return 0;
	}
	else
		return 2;
	/* The last argument tells the test that this was all. */
	if (argc > 2)
		run("end", "/bin/true", (char *[]){ "true", argv[2], NULL });
	return 0;
}

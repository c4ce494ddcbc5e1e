/*
 * Calls that carry more than the kernel looks at, that a seccomp filter answers, or that open files in ways of their own.
 *
 * Prints for each call its label, the descriptor (-1 when refused) and errno, as opens.c does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef AT_EXECVE_CHECK
#define AT_EXECVE_CHECK 0x10000
#endif

static void report(const char *label, long ret)
{
	printf("%s %ld %d\n", label, ret < 0 ? -1 : ret, ret < 0 ? errno : 0);
	fflush(stdout);
}

/* A call with all 64 bits of each register as given. */
static long raw(unsigned long nr, unsigned long a, unsigned long b, unsigned long c, unsigned long d, unsigned long e)
{
	long ret;

#if defined(__x86_64__)
	register unsigned long r10 __asm__("r10") = d;
	register unsigned long r8 __asm__("r8") = e;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
#elif defined(__aarch64__)
	register unsigned long x8 __asm__("x8") = nr;
	register unsigned long x0 __asm__("x0") = a;
	register unsigned long x1 __asm__("x1") = b;
	register unsigned long x2 __asm__("x2") = c;
	register unsigned long x3 __asm__("x3") = d;
	register unsigned long x4 __asm__("x4") = e;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	ret = x0;
#endif
	if (ret < 0 && ret > -4096) {
		errno = -ret;
		return -1;
	}
	return ret;
}

#define JUNK (0xdeadbeefUL << 32)
#define P(pointer) ((unsigned long)(pointer))

/* Every register that the kernel takes an int or less of has more in it. */
static void wide(void)
{
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS };
	char *argv[] = { "wide", "exec", NULL };
	int dir = open("/etc", O_RDONLY | O_DIRECTORY);

	report("dir", dir);
	report("openat", raw(JUNK | SYS_openat, JUNK | (unsigned int)AT_FDCWD, P("/etc/hostname"), JUNK | O_CLOEXEC, JUNK, 0));
	report("openat-relative", raw(JUNK | SYS_openat, JUNK | dir, P("hostname"), JUNK | O_RDONLY, 0, 0));
	report("openat-create", raw(JUNK | SYS_openat, JUNK | (unsigned int)AT_FDCWD, P("/wide"),
				    JUNK | O_CREAT | O_WRONLY, JUNK | 0xabc0000 | 0604, 0));
	report("openat2", raw(JUNK | SYS_openat2, JUNK | (unsigned int)AT_FDCWD, P("/etc/hostname"), P(&how), sizeof(how), 0));
#ifdef SYS_open
	report("open", raw(JUNK | SYS_open, P("/etc/hostname"), JUNK | O_RDONLY, JUNK, 0, 0));
	report("creat", raw(JUNK | SYS_creat, P("/wide"), JUNK | 0xabc0000 | 0640, 0, 0, 0));
#endif
	report("execve", raw(JUNK | SYS_execve, P("/missing"), P(argv), 0, 0, 0));
	report("execveat", raw(JUNK | SYS_execveat, JUNK | (unsigned int)dir, P("missing"), P(argv), 0, JUNK));
}

/* The BPF of a filter that returns `action` for one call. */
static void filter(unsigned int nr, unsigned int action)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog)) {
		perror("seccomp");
		exit(1);
	}
}

static volatile sig_atomic_t trapped;

static void on_trap(int signal)
{
	(void)signal;
	trapped++;
}

static void open_it(const char *path)
{
	syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
}

static void exec_it(const char *path)
{
	char *argv[] = { (char *)path, NULL };

	syscall(SYS_execve, path, argv, NULL);
}

/* In a child under a filter: a call that it answers, then another that it does not. */
static void answered(unsigned int nr, unsigned int action, void (*call)(const char *), const char *path)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		/* In memory, as a program that runs has its paths. */
		char *copy = strdup(path);

		signal(SIGSYS, on_trap);
		filter(nr, action);
		call(copy);
		_exit(trapped);
	}
	waitpid(child, &status, 0);
	printf("%s %d %d\n", path, WIFSIGNALED(status) ? WTERMSIG(status) : 0, WIFEXITED(status) ? WEXITSTATUS(status) : 0);
	fflush(stdout);
}

static void seccomp_opens(void)
{
	int fd, null = open("/etc/hostname", O_RDONLY);

	answered(SYS_openat, SECCOMP_RET_TRAP, open_it, "/trap");
	answered(SYS_openat, SECCOMP_RET_KILL_PROCESS, open_it, "/kill");
	answered(SYS_openat, SECCOMP_RET_ERRNO | EACCES, open_it, "/refuse");
	/* An open whose descriptor is the call's number, in a process that has a filter, too. */
	filter(SYS_getppid, SECCOMP_RET_ERRNO | EACCES);
	for (fd = null; fd != SYS_openat - 1; fd = dup(null))
		if (fd < 0)
			exit(1);
	report("number", syscall(SYS_openat, AT_FDCWD, "/etc/hostname", O_RDONLY, 0));
}

static void seccomp_execs(void)
{
	answered(SYS_execve, SECCOMP_RET_TRAP, exec_it, "/trap");
	answered(SYS_execve, SECCOMP_RET_KILL_PROCESS, exec_it, "/kill");
	answered(SYS_execve, SECCOMP_RET_ERRNO | EACCES, exec_it, "/refuse");
}

static void handles(void)
{
	struct {
		struct file_handle header;
		unsigned char bytes[128];
	} handle = { .header.handle_bytes = 128 };
	int mount_id, mount = open("/shm", O_RDONLY | O_DIRECTORY), fd = creat("/shm/secret", 0600);

	close(fd);
	if (name_to_handle_at(AT_FDCWD, "/shm/secret", &handle.header, &mount_id, 0)) {
		perror("name_to_handle_at");
		exit(1);
	}
	printf("handle %d ", handle.header.handle_type);
	for (unsigned int i = 0; i < handle.header.handle_bytes; i++)
		printf("%02x", handle.bytes[i]);
	printf("\n");
	report("mount", mount);
	report("open", syscall(SYS_open_by_handle_at, mount, &handle, O_RDONLY | O_CLOEXEC));
	report("wide", raw(JUNK | SYS_open_by_handle_at, JUNK | mount, P(&handle), JUNK | O_RDWR, 0, 0));
	handle.header.handle_bytes = 4096;
	report("long", syscall(SYS_open_by_handle_at, mount, &handle, O_RDONLY));
	report("fault", syscall(SYS_open_by_handle_at, mount, 8, O_RDONLY));
}

static void resolves(void)
{
	struct open_how how = { .flags = O_RDONLY, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
	int dir = open("/etc", O_RDONLY | O_DIRECTORY);

	report("dir", dir);
	report("beneath", syscall(SYS_openat2, dir, "../bin", &how, sizeof(how)));
	how.resolve = 0;
	report("none", syscall(SYS_openat2, dir, "hostname", &how, sizeof(how)));
	how.flags = 1ULL << 32 | 1 << 26 | O_WRONLY;
	how.resolve = 1ULL << 40;
	report("new", syscall(SYS_openat2, dir, "hostname", &how, sizeof(how)));
	report("fault", syscall(SYS_openat2, dir, "hostname", 8, sizeof(how)));
}

/* So many arguments, to a program that is missing. */
static void arguments(int count)
{
	char **argv = calloc(count + 1, sizeof(char *));

	for (int i = 0; i < count; i++)
		argv[i] = strdup("x");
	execve("/missing", argv, NULL);
}

/* Executes by descriptor alone what cannot be executed, and checks without executing. */
static void descriptors(void)
{
	char *argv[] = { "argument", NULL };
	int fd;

	arguments(127);
	arguments(128);
	arguments(129);
	fd = open("/etc/hostname", O_RDONLY);
	report("fexecve", syscall(SYS_execveat, fd, "", argv, NULL, AT_EMPTY_PATH));
	report("check-refused", syscall(SYS_execveat, fd, "", argv, NULL, AT_EMPTY_PATH | AT_EXECVE_CHECK));
	fd = open("/bin/busybox", O_RDONLY);
	report("check", syscall(SYS_execveat, fd, "", argv, NULL, AT_EMPTY_PATH | AT_EXECVE_CHECK));
	/* With nothing but a path. */
	syscall(SYS_execve, "/missing", NULL, NULL);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "wide"))
		wide();
	else if (!strcmp(what, "seccomp-opens"))
		seccomp_opens();
	else if (!strcmp(what, "seccomp-execs"))
		seccomp_execs();
	else if (!strcmp(what, "handles"))
		handles();
	else if (!strcmp(what, "resolve"))
		resolves();
	else if (!strcmp(what, "descriptors"))
		descriptors();
	else
		return 2;
	/* The last argument tells the test that this was all. */
	fflush(stdout);
	if (argc > 2) {
		char *end[] = { "true", argv[2], NULL };

		syscall(SYS_openat, AT_FDCWD, argv[2], O_RDONLY, 0);
		execve("/bin/true", end, NULL);
	}
	return 0;
}

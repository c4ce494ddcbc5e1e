/*
 * Preloaded, has a program believe that it runs on a release candidate of Debian's kernel.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

int uname(struct utsname *name)
{
	int failed = syscall(SYS_uname, name);

	strcpy(name->version, "#1 SMP PREEMPT_DYNAMIC Debian 7.3~rc4-1~exp1 (2026-09-01)");
	return failed;
}

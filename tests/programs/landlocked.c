/*
 * Executes a program that may not look into processes which it has not started: what a security module does that confines
 * it. Any Landlock ruleset has that effect; this one forbids nothing else that anybody does.
 *
 * Without a program: succeeds if the kernel has Landlock.
 */
#define _GNU_SOURCE
#include <linux/landlock.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct landlock_ruleset_attr rules = { .handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_SOCK };
	long ruleset = syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules.handled_access_fs), 0);

	if (ruleset < 0) {
		perror("landlock_create_ruleset");
		return 1;
	}
	if (argc < 2)
		return 0;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_landlock_restrict_self, ruleset, 0)) {
		perror("landlock_restrict_self");
		return 1;
	}
	execv(argv[1], argv + 1);
	perror(argv[1]);
	return 1;
}

/*
 * Stands where the engine expects the runtime, under the runtime's name, and hands over to another
 * one with other arguments, as nvidia-container-runtime and the like do.
 *
 * WRAPPED holds the program and its arguments, each ended by byte 1.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
	static char *argv[64];
	char *rest = getenv("WRAPPED");
	int argc = 0;

	while (rest && *rest && argc < 63) {
		argv[argc++] = rest;
		rest = strchr(rest, 1);
		if (rest)
			*rest++ = 0;
	}
	unsetenv("WRAPPED");
	if (argc)
		execv(argv[0], argv);
	return 127;
}

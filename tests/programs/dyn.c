/* A dynamically linked program: its loader opens files before main does. */
#include <fcntl.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		printf("%s %s\n", open(argv[i], O_RDONLY) < 0 ? "refused" : "opened", argv[i]);
	return 0;
}

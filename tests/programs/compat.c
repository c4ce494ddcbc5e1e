/*
 * 32-bit system calls by `int $0x80`. Compiled twice: as a 64-bit program, whose calls are compat
 * calls though the task is not an i386 one, and as a real i386 program. No libc: there may be none
 * for i386. Everything lies in static data, below 4 GiB, where a 32-bit call can name it.
 *
 * Prints a line for each call: its name and errno.
 */

#define AT_FDCWD (-100)
#define O_WRONLY 1
#define O_CREAT 0100
#define O_CLOEXEC 02000000

static char text[512];

static struct open_how {
	unsigned long long flags, mode, resolve;
} how = { O_CLOEXEC, 0, 0 };

#ifdef __x86_64__
/*
 * The 64-bit argument registers hold a path too: whoever takes an i386 call's number for a 64-bit
 * one and looks for the path there, finds one.
 */
#define DECOY , "D"("/decoy/rdi"), "S"("/decoy/rsi")
#else
#define DECOY
#endif

static long call3(long nr, long a, long b, long c)
{
	long ret;

#ifdef __x86_64__
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c) DECOY
			 : "memory", "r8", "r9", "r10", "r11");
#else
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory");
#endif
	return (int)ret;
}

/* The fourth argument is in esi, the fifth in edi: no room for decoys. */
static long call5(long nr, long a, long b, long c, long d, long e)
{
	long ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
			 : "memory"
#ifdef __x86_64__
			 , "r8", "r9", "r10", "r11"
#endif
	);
	return (int)ret;
}

static void put(const char *s)
{
	long len = 0;

	while (s[len])
		len++;
	call3(4, 1, (long)s, len);
}

static void report(const char *name, long ret)
{
	long err = ret < 0 && ret > -4096 ? -ret : 0;
	char *p = text;

	while (*name)
		*p++ = *name++;
	*p++ = ' ';
	if (err >= 10)
		*p++ = '0' + err / 10;
	*p++ = '0' + err % 10;
	*p++ = '\n';
	*p = 0;
	put(text);
}

__attribute__((used)) static void run(long argc)
{
	/* With an argument: only whether the kernel answers at all. */
	if (argc > 1)
		call3(1, 0, 0, 0);

	report("open", call3(5, (long)"/compat/open", O_WRONLY, 0));
	report("openat", call5(295, AT_FDCWD, (long)"/compat/openat", O_CLOEXEC, 0, 0));
	report("openat2", call5(437, AT_FDCWD, (long)"/compat/openat2", (long)&how, sizeof(how), 0));
	report("creat", call3(8, (long)"/compat/creat", 0640, 0));

	/* 2 is open to a 64-bit program. */
	long child = call3(2, (long)"/decoy/fork", 0, 0);
	if (child == 0)
		call3(1, 0, 0, 0);
	call3(7, child, 0, 0);
	report("fork", child < 0 ? child : 0);
	/* 257 is openat. */
	report("remap_file_pages", call5(257, 1, 1, 0, (long)"/decoy/257", 0));
	/* 85 is creat. */
	report("readlink", call3(85, (long)"/decoy/readlink", (long)text, sizeof(text)));
	call3(1, 0, 0, 0);
}

#ifdef __x86_64__
__asm__(".globl _start\n_start:\n\tmov (%rsp), %rdi\n\tand $-16, %rsp\n\tcall run\n\thlt\n");
#else
__asm__(".globl _start\n_start:\n\tmov (%esp), %eax\n\tand $-16, %esp\n\tsub $12, %esp\n\tpush %eax\n\tcall run\n\thlt\n");
#endif

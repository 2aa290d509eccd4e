/*
 * Starts the data process as an older kernel would have it: what the name of this program withholds fails, whoever
 * asks for it. The name, that of a symbolic link, is `withhold-FLAGS[-OPTION...]`: TUNSETOFFLOAD with one of these
 * flags (hexadecimal; linux/if_tun.h) is EINVAL, setsockopt(2) of these UDP options (udp(7)) is ENOPROTOOPT. The data
 * process gets every argument and descriptor, and answers for itself.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PROGRAM "dist/tartan-datapath"
#define PREFIX "withhold-"
#define OPTIONS_MAX 8
/* Little-endian: the low half of an argument comes first. */
#define ARGUMENT(n) ((unsigned int)offsetof(struct seccomp_data, args[n]))
#define LOAD(at) (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)
#define RETURN(what) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, what)
/* Goes on where the loaded word is `value`, else over `skipped` instructions. */
#define IF(value, skipped) (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skipped)
#define IF_ANY(bits, skipped) (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, skipped)

static int withhold(unsigned int flags, const unsigned int *option, size_t options)
{
	struct sock_filter f[20 + 2 * OPTIONS_MAX];
	size_t n = 0;

	f[n++] = LOAD(offsetof(struct seccomp_data, nr));
	f[n++] = IF(SYS_ioctl, 6);
	f[n++] = LOAD(ARGUMENT(1));
	f[n++] = IF((unsigned int)TUNSETOFFLOAD, 3);
	f[n++] = LOAD(ARGUMENT(2));
	f[n++] = IF_ANY(flags, 1);
	f[n++] = RETURN(SECCOMP_RET_ERRNO | EINVAL);
	f[n++] = RETURN(SECCOMP_RET_ALLOW);
	f[n++] = IF(SYS_setsockopt, (unsigned char)(3 + 2 * options));
	f[n++] = LOAD(ARGUMENT(1));
	f[n++] = IF(IPPROTO_UDP, (unsigned char)(1 + 2 * options));
	f[n++] = LOAD(ARGUMENT(2));
	for (size_t i = 0; i < options; i++) {
		f[n++] = IF(option[i], 1);
		f[n++] = RETURN(SECCOMP_RET_ERRNO | ENOPROTOOPT);
	}
	f[n++] = RETURN(SECCOMP_RET_ALLOW);

	struct sock_fprog program = {.len = (unsigned short)n, .filter = f};
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Beside the tree that this program was built in: native/build/withhold. */
static int run(char **argv)
{
	char path[4096];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - sizeof PROGRAM);

	for (int levels = 3; length > 0 && levels > 0; levels -= path[length] == '/')
		length--;
	if (length < 0)
		return 1;
	memcpy(path + length + 1, PROGRAM, sizeof PROGRAM);
	execv(path, argv);
	return 1;
}

int main(int argc, char **argv)
{
	unsigned int option[OPTIONS_MAX];
	size_t options = 0;
	const char *name = argc > 0 ? strrchr(argv[0], '/') : NULL;
	char *rest = NULL;

	if (!name || strncmp(name + 1, PREFIX, sizeof PREFIX - 1) != 0)
		return 64;
	unsigned int flags = (unsigned int)strtoul(name + sizeof PREFIX, &rest, 16);
	while (*rest == '-' && options < OPTIONS_MAX)
		option[options++] = (unsigned int)strtoul(rest + 1, &rest, 10);
	if (*rest != 0 || withhold(flags, option, options))
		return 64;
	return run(argv);
}

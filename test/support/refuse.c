/*
 * Starts a program for which some system calls do not work, as under the filter of a container:
 * `refuse RULE... -- PROGRAM ARGUMENT...`. A rule is `CALL=WHAT` or, for setsockopt(2), `CALL=WHAT@LEVEL,OPTION`; WHAT is
 * the number of an error, `trap` (SIGSYS, which a handler may catch) or `kill`. The program also gets descriptor 77.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define OPEN_FD 77

/* Little-endian: the low half of an argument comes first. */
#define ARGUMENT(n) ((unsigned int)offsetof(struct seccomp_data, args[n]))
#define LOAD(at) (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)
#define RETURN(what) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, what)
/* Goes on where the loaded word is `value`, else over `skipped` instructions. */
#define IF(value, skipped) (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skipped)

static const struct {
	const char *name;
	unsigned int number;
} calls[] = { { "close_range", SYS_close_range }, { "setsockopt", SYS_setsockopt }, { "sendmmsg", SYS_sendmmsg } };

static int install(struct sock_filter *f, size_t count)
{
	struct sock_fprog program = { .len = (unsigned short)count, .filter = f };

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int refuse(const char *rule)
{
	const char *what = strchr(rule, '=');
	unsigned int level = 0, option = 0, number = 0, action;

	for (size_t i = 0; what && i < sizeof calls / sizeof calls[0]; i++)
		if (strncmp(calls[i].name, rule, (size_t)(what - rule)) == 0)
			number = calls[i].number;
	if (number == 0)
		return -1;
	action = SECCOMP_RET_ERRNO | (unsigned int)atoi(what + 1);
	if (strcmp(what, "=trap") == 0)
		action = SECCOMP_RET_TRAP;
	if (strcmp(what, "=kill") == 0)
		action = SECCOMP_RET_KILL_PROCESS;
	struct sock_filter whole[] = { LOAD(offsetof(struct seccomp_data, nr)), IF(number, 1), RETURN(action),
				       RETURN(SECCOMP_RET_ALLOW) };
	const char *arguments = strchr(what, '@');
	if (!arguments)
		return install(whole, sizeof whole / sizeof whole[0]);
	if (sscanf(arguments, "@%u,%u", &level, &option) != 2)
		return -1;
	struct sock_filter one[] = { LOAD(offsetof(struct seccomp_data, nr)), IF(number, 5), LOAD(ARGUMENT(1)),
				     IF(level, 3), LOAD(ARGUMENT(2)), IF(option, 1), RETURN(action),
				     RETURN(SECCOMP_RET_ALLOW) };
	return install(one, sizeof one / sizeof one[0]);
}

int main(int argc, char **argv)
{
	char **at = argv + 1;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || dup2(STDIN_FILENO, OPEN_FD) < 0)
		return 64;
	for (; at < argv + argc && strcmp(*at, "--") != 0; at++)
		if (refuse(*at))
			return 64;
	if (at + 1 >= argv + argc)
		return 64;
	execv(at[1], at + 1);
	return 64;
}

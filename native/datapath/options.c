/* See options.h. */
#include "options.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIXED_ARGUMENTS 7
#define STANDARD_END 3

/* Reads a decimal number from `low` to INT_MAX with nothing after it. */
static bool parse_number(const char *text, long low, int *value)
{
	char *end;

	errno = 0;
	long number = strtol(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || number < low || number > INT_MAX)
		return false;
	*value = (int)number;
	return true;
}

/* Reads numbers up to -1 or the end. Returns the argument after them, or NULL. */
static char **parse_list(char **at, char **end, size_t limit, struct descriptors *list)
{
	for (list->count = 0; at < end; at++) {
		int number;
		if (!parse_number(*at, -1, &number))
			return NULL;
		if (number == -1)
			return at + 1;
		if (list->count == limit)
			return NULL;
		list->fd[list->count++] = number;
	}
	return at;
}

bool options_parse(struct options *o, int argc, char **argv)
{
	int fixed[FIXED_ARGUMENTS];
	char **end = argv + argc;

	if (argc <= 1 + FIXED_ARGUMENTS)
		return false;
	for (int i = 0; i < FIXED_ARGUMENTS; i++)
		if (!parse_number(argv[1 + i], 0, &fixed[i]))
			return false;
	*o = (struct options){
		.status = fixed[0],
		.routes = fixed[1],
		.counters = fixed[2],
		.listen = fixed[3],
		.uid = (uid_t)fixed[4],
		.gid = (gid_t)fixed[5],
		.owner = (uid_t)fixed[6],
	};
	char **at = parse_list(argv + 1 + FIXED_ARGUMENTS, end, QUEUES_MAX, &o->tun);
	if (at != NULL)
		at = parse_list(at, end, QUEUES_MAX, &o->udp);
	if (at != NULL)
		at = parse_list(at, end, THREADS_MAX, &o->wake);
	return at == end && o->tun.count > 0 && o->udp.count == o->tun.count &&
	       o->wake.count == 2 * options_lanes(o) + (o->tun.count > 1);
}

static size_t append(int *fds, size_t at, const struct descriptors *list)
{
	memcpy(fds + at, list->fd, list->count * sizeof list->fd[0]);
	return at + list->count;
}

size_t options_descriptors(const struct options *o, int *fds)
{
	fds[0] = o->routes;
	fds[1] = o->counters;
	fds[2] = o->listen;
	return append(fds, append(fds, append(fds, 3, &o->tun), &o->udp), &o->wake);
}

static bool is_in(const int *fds, size_t count, int fd)
{
	while (count > 0)
		if (fds[--count] == fd)
			return true;
	return false;
}

/* The call itself, because libc before 2.34 has no function for it. Since Linux 5.9. */
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
/* Where neither the call nor /proc can be used. tartand's own descriptors are far below. */
#define CLOSED_MAX 65536

/* An older filter of a container answers EPERM to a call that it does not know. */
static void close_from(int first)
{
	if (syscall(SYS_close_range, (unsigned int)first, ~0u, 0) == 0)
		return;
	DIR *listed = opendir("/proc/self/fd");
	if (listed == NULL) {
		for (int fd = first; fd < CLOSED_MAX; fd++)
			close(fd);
		return;
	}
	for (struct dirent *e = readdir(listed); e != NULL; e = readdir(listed)) {
		int fd = atoi(e->d_name);
		if (fd >= first && fd != dirfd(listed))
			close(fd);
	}
	closedir(listed);
}

int options_take_descriptors(const struct options *o)
{
	int fds[DESCRIPTORS_MAX], last = o->status > STANDARD_END ? o->status : STANDARD_END;
	const size_t count = options_descriptors(o, fds);

	for (size_t i = 0; i < count; i++)
		last = fds[i] > last ? fds[i] : last;
	/* A wrong number must not make the next loop count to two thousand million. */
	if (last >= sysconf(_SC_OPEN_MAX))
		return EBADF;
	for (int fd = STANDARD_END; fd < last; fd++)
		if (fd != o->status && !is_in(fds, count, fd))
			close(fd);
	close_from(last + 1);
	/* All but the two memories, which are mapped. */
	for (size_t i = 2; i < count; i++) {
		int flags = fcntl(fds[i], F_GETFL);
		if (flags < 0 || fcntl(fds[i], F_SETFL, flags | O_NONBLOCK) < 0)
			return errno;
	}
	return 0;
}

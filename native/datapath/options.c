/* See options.h. */
#include "options.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
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

static bool in_list(const struct descriptors *list, int fd)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->fd[i] == fd)
			return true;
	return false;
}

static bool is_named(const struct options *o, int fd)
{
	return fd == o->status || fd == o->routes || fd == o->counters || fd == o->listen || in_list(&o->tun, fd) ||
	       in_list(&o->udp, fd) || in_list(&o->wake, fd);
}

static int larger(int a, int b)
{
	return a > b ? a : b;
}

static int highest_of(const struct descriptors *list)
{
	int fd = STANDARD_END;

	for (size_t i = 0; i < list->count; i++)
		fd = larger(fd, list->fd[i]);
	return fd;
}

static int highest(const struct options *o)
{
	int files = larger(larger(o->status, o->routes), larger(o->counters, o->listen));
	int queues = larger(highest_of(&o->tun), highest_of(&o->udp));

	return larger(files, larger(queues, highest_of(&o->wake)));
}

static int set_nonblocking(const struct descriptors *list)
{
	for (size_t i = 0; i < list->count; i++) {
		int flags = fcntl(list->fd[i], F_GETFL);
		if (flags < 0 || fcntl(list->fd[i], F_SETFL, flags | O_NONBLOCK) < 0)
			return errno;
	}
	return 0;
}

int options_take_descriptors(const struct options *o)
{
	const struct descriptors listen = { .count = 1, .fd = { o->listen } };
	int last = highest(o);

	/* A wrong number must not make the loop below count to two thousand million. */
	if (last >= sysconf(_SC_OPEN_MAX))
		return EBADF;
	for (int fd = STANDARD_END; fd < last; fd++)
		if (!is_named(o, fd))
			close(fd);
	/* Linux before 5.9 does not have the call. There tartand's own close-on-exec has closed the rest. */
	if (close_range((unsigned int)last + 1, ~0u, 0) < 0 && errno != ENOSYS)
		return errno;
	int err = set_nonblocking(&listen);
	if (err == 0)
		err = set_nonblocking(&o->tun);
	if (err == 0)
		err = set_nonblocking(&o->udp);
	return err == 0 ? set_nonblocking(&o->wake) : err;
}

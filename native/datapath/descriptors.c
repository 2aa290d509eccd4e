/*
 * Taking over the inherited descriptors; see descriptors.h. One that slipped in from the starter (a log, a store
 * connection) would outlive it here and be in the reach of whoever takes over this process.
 */
#include "descriptors.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define STANDARD_END 3

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

int descriptors_take(const struct options *o)
{
	const struct descriptors listen = { .count = 1, .fd = { o->listen } };
	int last = highest(o);

	/* A wrong number must not make us count to two thousand million. */
	if (last >= sysconf(_SC_OPEN_MAX))
		return EBADF;
	for (int fd = STANDARD_END; fd < last; fd++)
		if (!is_named(o, fd))
			close(fd);
	/* Linux before 5.9 does not know it; the starter's own close-on-exec is the rule there. */
	if (close_range((unsigned int)last + 1, ~0u, 0) < 0 && errno != ENOSYS)
		return errno;
	int err = set_nonblocking(&listen);
	if (err == 0)
		err = set_nonblocking(&o->tun);
	if (err == 0)
		err = set_nonblocking(&o->udp);
	return err == 0 ? set_nonblocking(&o->wake) : err;
}

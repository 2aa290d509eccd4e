/* Serving datapath.sock from the main thread; see answer.h and struct hello in layout.h. */
#include "answer.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DESCRIPTORS_MAX (3 + 2 * QUEUES_MAX + THREADS_MAX)
/* Far more than one tartand and an operator's tool; one over it is turned away, none is ever pushed out. */
#define CONNECTIONS_MAX 16
#define FIXED_POLLS 2
#define ACCEPT_FAILED_MS 100

struct door {
	const struct options *options;
	const struct hello *hello;
	/* `done`, the listening socket, then the connections; -1 is a free place, which poll(2) skips. */
	struct pollfd polls[FIXED_POLLS + CONNECTIONS_MAX];
};

void answer_prepare(struct hello *h, const struct options *o)
{
	*h = (struct hello){
		.magic = LAYOUT_MAGIC,
		.version = LAYOUT_VERSION,
		.pid = (uint32_t)getpid(),
		.tun_queues = (uint32_t)o->tun.count,
		.udp_sockets = (uint32_t)o->udp.count,
		.threads = (uint32_t)o->wake.count,
		.descriptors = (uint32_t)(3 + o->tun.count + o->udp.count + o->wake.count),
		.build = TARTAN_BUILD,
	};
}

static size_t append(int *fds, size_t at, const struct descriptors *list)
{
	memcpy(fds + at, list->fd, list->count * sizeof list->fd[0]);
	return at + list->count;
}

static bool send_hello(const struct door *d, int connection)
{
	const struct options *o = d->options;
	int fds[DESCRIPTORS_MAX] = { o->routes, o->counters, o->listen };
	size_t count = append(fds, append(fds, append(fds, 3, &o->tun), &o->udp), &o->wake);
	union {
		char space[CMSG_SPACE(sizeof fds)];
		struct cmsghdr aligned;
	} control;
	struct iovec iov = { .iov_base = (void *)d->hello, .iov_len = sizeof *d->hello };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(count * sizeof fds[0]),
	};

	memset(&control, 0, sizeof control);
	struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(count * sizeof fds[0]);
	memcpy(CMSG_DATA(rights), fds, count * sizeof fds[0]);
	return sendmsg(connection, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof *d->hello;
}

/* The file's mode keeps strangers out already; the kernel's word about who connected does not depend on it. */
static bool is_owner(const struct door *d, int connection)
{
	struct ucred peer;
	socklen_t bytes = sizeof peer;

	if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0)
		return false;
	return peer.uid == d->options->owner;
}

static struct pollfd *free_place(struct door *d)
{
	for (size_t i = FIXED_POLLS; i < FIXED_POLLS + CONNECTIONS_MAX; i++)
		if (d->polls[i].fd < 0)
			return &d->polls[i];
	return NULL;
}

static void welcome(struct door *d)
{
	int connection = accept4(d->options->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (connection < 0) {
		/* What stays in the queue keeps the socket readable: without a pause this would spin. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			poll(&d->polls[0], 1, ACCEPT_FAILED_MS);
		return;
	}
	struct pollfd *place = free_place(d);
	if (place == NULL || !is_owner(d, connection) || !send_hello(d, connection)) {
		close(connection);
		return;
	}
	*place = (struct pollfd){ .fd = connection, .events = POLLIN };
}

/* Nothing is expected on a connection but its end; what comes all the same is read and forgotten. */
static void listen_to(struct pollfd *place)
{
	char byte;
	ssize_t bytes = recv(place->fd, &byte, sizeof byte, MSG_DONTWAIT);

	if (bytes > 0 || (bytes < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	close(place->fd);
	place->fd = -1;
}

void answer_serve(const struct options *options, const struct hello *hello, int done)
{
	struct door d = { .options = options, .hello = hello };
	uint64_t finished = 0;

	for (size_t i = 0; i < FIXED_POLLS + CONNECTIONS_MAX; i++)
		d.polls[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	d.polls[0].fd = done;
	d.polls[1].fd = options->listen;
	while (finished < hello->threads) {
		uint64_t more = 0;
		if (poll(d.polls, FIXED_POLLS + CONNECTIONS_MAX, -1) < 0)
			continue;
		if ((d.polls[0].revents & POLLIN) && read(done, &more, sizeof more) == (ssize_t)sizeof more)
			finished += more;
		if (d.polls[1].revents != 0)
			welcome(&d);
		for (size_t i = FIXED_POLLS; i < FIXED_POLLS + CONNECTIONS_MAX; i++)
			if (d.polls[i].fd >= 0 && d.polls[i].revents != 0)
				listen_to(&d.polls[i]);
	}
}

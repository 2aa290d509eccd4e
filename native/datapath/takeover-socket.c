/* Serving of datapath.sock by the main thread; see takeover-socket.h, and struct hello in layout.h. */
#include "takeover-socket.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Far more than tartand and an operator's tool need. A further connection is closed; none that is open ever is. */
#define CONNECTIONS_MAX 16
#define FIXED_POLLS 2
#define ACCEPT_FAILED_MS 100

struct server {
	const struct options *options;
	const struct hello *hello;
	/* `done`, the listening socket, then the connections. A free entry is -1, which poll(2) skips. */
	struct pollfd polls[FIXED_POLLS + CONNECTIONS_MAX];
};

void takeover_socket_hello(struct hello *h, const struct options *o)
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

static bool send_message(int connection, const void *bytes, size_t length, const int *fds, size_t count)
{
	union {
		char space[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
		struct cmsghdr aligned;
	} control;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
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
	return sendmsg(connection, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)length;
}

static struct hello_entry entry_of(enum descriptor_type type, size_t descriptors)
{
	return (struct hello_entry){ .type = (uint16_t)type, .bytes = sizeof(struct hello_entry),
				     .descriptors = (uint32_t)descriptors };
}

/* Both messages, which carry the same descriptors in the same order. */
static bool send_hello(const struct server *s, int connection)
{
	const struct options *o = s->options;
	int fds[DESCRIPTORS_MAX];
	const size_t count = options_descriptors(o, fds);
	const struct {
		struct hello_list list;
		struct hello_entry entry[DESCRIPTOR_TYPES - 1];
	} typed = {
		.list = { .magic = LAYOUT_MAGIC, .version = LAYOUT_VERSION, .count = DESCRIPTOR_TYPES - 1 },
		.entry = { entry_of(DESCRIPTOR_ROUTES, 1), entry_of(DESCRIPTOR_COUNTERS, 1),
			   entry_of(DESCRIPTOR_LISTENER, 1), entry_of(DESCRIPTOR_TUN, o->tun.count),
			   entry_of(DESCRIPTOR_UDP, o->udp.count), entry_of(DESCRIPTOR_DOORBELL, o->wake.count) },
	};

	return send_message(connection, s->hello, sizeof *s->hello, fds, count) &&
	       send_message(connection, &typed, sizeof typed, fds, count);
}

/* The mode of the socket file keeps other users out already. The kernel's credentials do not depend on it. */
static bool is_owner(const struct server *s, int connection)
{
	struct ucred peer;
	socklen_t bytes = sizeof peer;

	if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0)
		return false;
	return peer.uid == s->options->owner;
}

static struct pollfd *free_entry(struct server *s)
{
	for (size_t i = FIXED_POLLS; i < FIXED_POLLS + CONNECTIONS_MAX; i++)
		if (s->polls[i].fd < 0)
			return &s->polls[i];
	return NULL;
}

static void accept_connection(struct server *s)
{
	int connection = accept4(s->options->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (connection < 0) {
		/* The connection stays queued and the socket readable: without a pause this would spin. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			poll(&s->polls[0], 1, ACCEPT_FAILED_MS);
		return;
	}
	struct pollfd *entry = free_entry(s);
	if (entry == NULL || !is_owner(s, connection) || !send_hello(s, connection)) {
		close(connection);
		return;
	}
	*entry = (struct pollfd){ .fd = connection, .events = POLLIN };
}

/* Nothing but its end is expected on a connection. What arrives nevertheless is read and dropped. */
static void read_connection(struct pollfd *entry)
{
	char byte;
	ssize_t bytes = recv(entry->fd, &byte, sizeof byte, MSG_DONTWAIT);

	if (bytes > 0 || (bytes < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	close(entry->fd);
	entry->fd = -1;
}

void takeover_socket_serve(const struct options *options, const struct hello *hello, int done)
{
	struct server s = { .options = options, .hello = hello };
	uint64_t finished = 0;

	for (size_t i = 0; i < FIXED_POLLS + CONNECTIONS_MAX; i++)
		s.polls[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	s.polls[0].fd = done;
	s.polls[1].fd = options->listen;
	while (finished < hello->threads) {
		uint64_t more = 0;
		if (poll(s.polls, FIXED_POLLS + CONNECTIONS_MAX, -1) < 0)
			continue;
		if ((s.polls[0].revents & POLLIN) && read(done, &more, sizeof more) == (ssize_t)sizeof more)
			finished += more;
		if (s.polls[1].revents != 0)
			accept_connection(&s);
		for (size_t i = FIXED_POLLS; i < FIXED_POLLS + CONNECTIONS_MAX; i++)
			if (s.polls[i].fd >= 0 && s.polls[i].revents != 0)
				read_connection(&s.polls[i]);
	}
}

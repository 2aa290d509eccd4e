/* takeover-socket.c over a real socket: the message and its descriptors, who is turned away, and when serving ends. */
#include "takeover-socket.h"
#include "test.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FDS_MAX 32
#define WAIT_MS 5000
#define CONNECTIONS 16 /* CONNECTIONS_MAX of takeover-socket.c */

struct lab {
	struct options options;
	struct hello hello;
	struct sockaddr_un address;
	socklen_t address_bytes;
	int done;
	pthread_t thread;
};

static void *serve(void *argument)
{
	struct lab *l = argument;

	takeover_socket_serve(&l->options, &l->hello, l->done);
	return NULL;
}

static int some_file(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static struct lab *lab_open(uid_t owner)
{
	struct lab *l = calloc(1, sizeof *l);
	struct options *o = &l->options;

	/* The kernel chooses a free abstract name for a socket that is bound without one. */
	l->address.sun_family = AF_UNIX;
	l->address_bytes = sizeof l->address;
	o->listen = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (bind(o->listen, (struct sockaddr *)&l->address, sizeof l->address.sun_family) < 0 || listen(o->listen, 32) < 0 ||
	    getsockname(o->listen, (struct sockaddr *)&l->address, &l->address_bytes) < 0)
		abort();
	o->owner = owner;
	o->routes = some_file();
	o->counters = some_file();
	o->tun = (struct descriptors){ .count = 1, .fd = { some_file() } };
	o->udp = (struct descriptors){ .count = 1, .fd = { some_file() } };
	o->wake = (struct descriptors){ .count = 2, .fd = { eventfd(0, 0), eventfd(0, 0) } };
	l->done = eventfd(0, EFD_NONBLOCK);
	takeover_socket_hello(&l->hello, o);
	pthread_create(&l->thread, NULL, serve, l);
	return l;
}

/* Does what each forwarding thread does when it ends. */
static void one_is_done(const struct lab *l)
{
	uint64_t one = 1;

	if (write(l->done, &one, sizeof one) < 0)
		abort();
}

static void lab_close(struct lab *l)
{
	const struct options *o = &l->options;

	one_is_done(l);
	one_is_done(l);
	pthread_join(l->thread, NULL);
	const int fds[] = { o->listen, o->routes, o->counters, o->tun.fd[0], o->udp.fd[0], o->wake.fd[0], o->wake.fd[1], l->done };
	for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
		close(fds[i]);
	free(l);
}

static int connect_to(const struct lab *l)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (connect(fd, (const struct sockaddr *)&l->address, l->address_bytes) < 0)
		abort();
	return fd;
}

/* The length of the message, 0 at the end of the connection, -1 if nothing comes. `fds` gets its descriptors. */
static ssize_t receive_bytes(int connection, void *bytes_in, size_t room, int *fds, size_t *count)
{
	union {
		char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr aligned;
	} control;
	struct iovec iov = { .iov_base = bytes_in, .iov_len = room };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	struct pollfd p = { .fd = connection, .events = POLLIN };

	*count = 0;
	if (poll(&p, 1, WAIT_MS) != 1)
		return -1;
	ssize_t bytes = recvmsg(connection, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (bytes > 0 && c != NULL && c->cmsg_type == SCM_RIGHTS) {
		*count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), *count * sizeof(int));
	}
	return bytes;
}

static ssize_t receive(int connection, struct hello *hello, int *fds, size_t *count)
{
	return receive_bytes(connection, hello, sizeof *hello, fds, count);
}

static void close_all(const int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
}

static bool same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void sends_hello(struct suite *s)
{
	struct lab *l = lab_open(getuid());
	int connection = connect_to(l), fds[FDS_MAX];
	struct pollfd quiet = { .fd = connection, .events = POLLIN };
	struct hello hello;
	size_t count;
	uint64_t value = 1;

	CHECK(s, receive(connection, &hello, fds, &count) == sizeof hello);
	CHECK(s, hello.magic == LAYOUT_MAGIC && hello.version == LAYOUT_VERSION && hello.pid == (uint32_t)getpid());
	CHECK(s, hello.tun_queues == 1 && hello.udp_sockets == 1 && hello.threads == 2 && hello.descriptors == 7);
	CHECK(s, strcmp(hello.build, TARTAN_BUILD) == 0 && count == 7);
	CHECK(s, same_file(fds[0], l->options.routes) && same_file(fds[2], l->options.listen));
	struct {
		struct hello_list list;
		struct hello_entry entry[6];
		uint8_t more;
	} typed;
	static const uint32_t descriptors[] = { 1, 1, 1, 1, 1, 2 };
	int again[FDS_MAX];
	size_t typed_count;
	CHECK(s, receive_bytes(connection, &typed, sizeof typed, again, &typed_count) == 60 && typed_count == 7);
	CHECK(s, typed.list.magic == LAYOUT_MAGIC && typed.list.version == LAYOUT_VERSION && typed.list.count == 6);
	for (size_t i = 0; i < 6; i++)
		CHECK(s, typed.entry[i].type == DESCRIPTOR_ROUTES + i && typed.entry[i].bytes == 8 &&
				 typed.entry[i].descriptors == descriptors[i]);
	for (size_t i = 0; i < count; i++)
		CHECK(s, same_file(fds[i], again[i]));
	close_all(again, typed_count);
	/* The last two are the doorbells, in their order. */
	CHECK(s, write(fds[6], &value, sizeof value) == sizeof value);
	CHECK(s, read(l->options.wake.fd[1], &value, sizeof value) == sizeof value && value == 1);
	/* What is sent on the connection gets no reply and does not end it. */
	CHECK(s, send(connection, "x", 1, 0) == 1 && poll(&quiet, 1, 50) == 0);
	close_all(fds, count);
	close(connection);
	lab_close(l);
}

static void turns_strangers_away(struct suite *s)
{
	struct lab *l = lab_open(getuid() + 1);
	int connection = connect_to(l), fds[FDS_MAX];
	struct hello hello;
	size_t count;

	CHECK(s, receive(connection, &hello, fds, &count) <= 0 && count == 0);
	close(connection);
	lab_close(l);
}

/* One connection too many is closed, the others stay. An entry that is free again is used again. */
static void bounds_connections(struct suite *s)
{
	struct lab *l = lab_open(getuid());
	int connections[CONNECTIONS], fds[FDS_MAX];
	struct hello hello;
	size_t count;

	for (int i = 0; i < CONNECTIONS; i++) {
		connections[i] = connect_to(l);
		CHECK(s, receive(connections[i], &hello, fds, &count) == sizeof hello);
		close_all(fds, count);
		CHECK(s, receive(connections[i], &hello, fds, &count) == 60);
		close_all(fds, count);
	}
	int one_more = connect_to(l);
	CHECK(s, receive(one_more, &hello, fds, &count) == 0);
	close(one_more);
	struct pollfd first = { .fd = connections[0], .events = POLLIN };
	CHECK(s, poll(&first, 1, 0) == 0);
	close(connections[0]);
	bool given = false;
	for (int i = 0; i < 100 && !given; i++) {
		connections[0] = connect_to(l);
		given = receive(connections[0], &hello, fds, &count) > 0;
		close_all(fds, count);
		if (!given)
			close(connections[0]);
	}
	CHECK(s, given);
	close_all(connections, CONNECTIONS);
	lab_close(l);
}

static void ends_with_the_last_worker(struct suite *s)
{
	struct lab *l = lab_open(getuid());
	struct hello hello;
	size_t count;
	int fds[FDS_MAX];

	one_is_done(l);
	int connection = connect_to(l);
	CHECK(s, receive(connection, &hello, fds, &count) == sizeof hello);
	close_all(fds, count);
	close(connection);
	/* lab_close() adds two more and joins. It would hang if serving did not end. */
	lab_close(l);
}

int main(void)
{
	struct suite s = { .name = "takeover-socket", .random = 13 };

	sends_hello(&s);
	turns_strangers_away(&s);
	bounds_connections(&s);
	ends_with_the_last_worker(&s);
	return suite_end(&s);
}

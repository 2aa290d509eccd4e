/*
 * Adoption of a running data process over its takeover socket (unix(7), SOCK_SEQPACKET): making the listening socket
 * that a data process inherits, and receiving the descriptors of one that runs.
 */
#include "addon.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "../shared/layout.h"

#define BACKLOG 8
/* The kernel passes no more descriptors in one message (unix(7), SCM_MAX_FD). */
#define RECEIVED_MAX 253

/* What came in one message. */
struct received {
	size_t bytes;
	size_t count;
	int fd[RECEIVED_MAX];
};

struct typed_descriptors {
	size_t count;
	int fd[THREADS_MAX];
};

struct adoption {
	struct hello hello;
	int connection;
	struct typed_descriptors type[DESCRIPTOR_TYPES];
	char fault[64]; /* of EPROTO: what the process does not send, or an empty text */
};

/* The descriptors that this build knows. It needs at least one of each type. */
static const struct { const char *name; size_t most; } types[DESCRIPTOR_TYPES] = {
	[DESCRIPTOR_ROUTES] = { "routes", 1 },           [DESCRIPTOR_COUNTERS] = { "counters", 1 },
	[DESCRIPTOR_LISTENER] = { "listening socket", 1 }, [DESCRIPTOR_TUN] = { "TUN queue", QUEUES_MAX },
	[DESCRIPTOR_UDP] = { "UDP socket", QUEUES_MAX },   [DESCRIPTOR_DOORBELL] = { "doorbell", THREADS_MAX },
};

static int unix_address(const char *path, struct sockaddr_un *address)
{
	size_t length = strlen(path);
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (length >= sizeof address->sun_path)
		return ENAMETOOLONG;
	memcpy(address->sun_path, path, length);
	return 0;
}

/* Returns 0 or an errno, with the call that failed in `step`. */
static int listen_at(int fd, const char *path, const char **step)
{
	struct sockaddr_un address;
	int err = unix_address(path, &address);
	*step = "bind";
	if (err)
		return err;
	/* The file gets the mode of the socket, less the umask. So no other user can ever connect. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		return errno;
	*step = "listen";
	if (listen(fd, BACKLOG) < 0)
		return errno;
	return 0;
}

static napi_value listen_seqpacket(napi_env env, napi_callback_info info)
{
	char path[PATH_BYTES];
	const char *step;
	napi_value argv[1];
	int fd, err;

	if (!read_arguments(env, info, 1, argv) || !read_text(env, argv[0], "the path", path, sizeof path))
		return NULL;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return throw_errno(env, errno, "socket", NULL);
	err = listen_at(fd, path, &step);
	if (err) {
		close(fd);
		return throw_errno(env, err, step, path);
	}
	return new_descriptor(env, fd);
}

static void close_from(struct received *r, size_t first)
{
	for (size_t i = first; i < r->count; i++)
		close(r->fd[i]);
	r->count = 0;
}

static void close_typed(struct adoption *a)
{
	for (size_t type = 0; type < DESCRIPTOR_TYPES; type++) {
		for (size_t i = 0; i < a->type[type].count; i++)
			close(a->type[type].fd[i]);
		a->type[type].count = 0;
	}
}

static int connect_to(const char *path, int timeout_ms)
{
	struct timeval limit = { .tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000 };
	struct sockaddr_un address;
	int err = unix_address(path, &address);
	int fd;

	if (err) {
		errno = err;
		return -1;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
	    connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		err = errno;
		close(fd);
		errno = err;
		return -1;
	}
	return fd;
}

static void keep_descriptors(struct msghdr *message, struct received *r)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
			int fd;
			memcpy(&fd, (const char *)c + at, sizeof fd);
			if (r->count < RECEIVED_MAX)
				r->fd[r->count++] = fd;
			else
				close(fd);
		}
	}
}

/* Receives one message. Returns 0, or an errno with no descriptor in `r`. */
static int receive(int connection, void *bytes, size_t room, struct received *r)
{
	union {
		char space[CMSG_SPACE(RECEIVED_MAX * sizeof(int))];
		struct cmsghdr aligned;
	} control;
	struct iovec iov = { .iov_base = bytes, .iov_len = room };
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
	};
	ssize_t length;

	r->count = 0;
	do
		length = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
	while (length < 0 && errno == EINTR);
	if (length < 0)
		return errno == EAGAIN ? ETIMEDOUT : errno;
	keep_descriptors(&message, r);
	r->bytes = (size_t)length;
	if (length > 0 && !(message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)))
		return 0;
	close_from(r, 0);
	return length == 0 ? ECONNRESET : EPROTO;
}

static bool hello_consistent(const struct hello *hello, const struct received *r)
{
	return r->bytes == sizeof *hello && hello->magic == LAYOUT_MAGIC && hello->tun_queues <= QUEUES_MAX &&
	       hello->udp_sockets <= QUEUES_MAX && hello->threads <= THREADS_MAX &&
	       hello->descriptors == 3 + hello->tun_queues + hello->udp_sockets + hello->threads &&
	       hello->descriptors == r->count;
}

/* Takes `count` descriptors of `r` from number `first` on. Those of an unknown type are closed. */
static int take(struct adoption *a, uint32_t type, const struct received *r, size_t first, size_t count)
{
	const bool is_known = type > 0 && type < DESCRIPTOR_TYPES;
	int err = 0;

	for (size_t i = first; i < first + count; i++) {
		if (is_known && a->type[type].count < types[type].most) {
			a->type[type].fd[a->type[type].count++] = r->fd[i];
			continue;
		}
		close(r->fd[i]);
		err = is_known ? EPROTO : err;
	}
	if (err)
		snprintf(a->fault, sizeof a->fault, "which sends more than %zu of: %s", types[type].most,
			 types[type].name);
	return err;
}

/* Takes the descriptors of the first message, whose order tells their types. */
static void take_in_order(struct adoption *a, const struct received *r)
{
	const size_t tuns = a->hello.tun_queues, udps = a->hello.udp_sockets;

	for (uint32_t type = DESCRIPTOR_ROUTES; type <= DESCRIPTOR_LISTENER; type++)
		take(a, type, r, type - DESCRIPTOR_ROUTES, 1);
	take(a, DESCRIPTOR_TUN, r, 3, tuns);
	take(a, DESCRIPTOR_UDP, r, 3 + tuns, udps);
	take(a, DESCRIPTOR_DOORBELL, r, 3 + tuns + udps, a->hello.threads);
}

/* Takes the descriptors of the second message. All of `r` are taken or closed, also if it fails. */
static int take_typed(struct adoption *a, const uint8_t *bytes, struct received *r)
{
	struct hello_list list = { .magic = 0 };
	size_t at = sizeof list, first = 0;
	int err = 0;

	if (r->bytes >= sizeof list)
		memcpy(&list, bytes, sizeof list);
	if (list.magic != LAYOUT_MAGIC)
		err = EPROTO;
	for (uint32_t i = 0; i < list.count && !err; i++) {
		struct hello_entry entry = { .bytes = 0 };
		if (r->bytes - at >= sizeof entry)
			memcpy(&entry, bytes + at, sizeof entry);
		if (entry.bytes < sizeof entry || entry.bytes > r->bytes - at || entry.descriptors > r->count - first) {
			err = EPROTO;
			break;
		}
		err = take(a, entry.type, r, first, entry.descriptors);
		at += entry.bytes;
		first += entry.descriptors;
	}
	if (!err && (at != r->bytes || first != r->count))
		err = EPROTO;
	close_from(r, first);
	return err;
}

static int require_all(struct adoption *a)
{
	for (size_t type = 1; type < DESCRIPTOR_TYPES; type++) {
		if (a->type[type].count > 0)
			continue;
		snprintf(a->fault, sizeof a->fault, "which sends no %s", types[type].name);
		return EPROTO;
	}
	return 0;
}

/* Returns 0 with descriptors in `a`, or an errno with none. */
static int receive_hello(struct adoption *a)
{
	uint8_t bytes[HELLO_LIST_BYTES_MAX];
	struct received r;
	int err = receive(a->connection, bytes, sizeof bytes, &r);

	if (err)
		return err;
	memcpy(&a->hello, bytes, sizeof a->hello);
	if (!hello_consistent(&a->hello, &r)) {
		close_from(&r, 0);
		return EPROTO;
	}
	if (a->hello.version < HELLO_LIST_VERSION) {
		take_in_order(a, &r);
	} else {
		close_from(&r, 0);
		err = receive(a->connection, bytes, sizeof bytes, &r);
		if (!err)
			err = take_typed(a, bytes, &r);
	}
	if (!err)
		err = require_all(a);
	if (err)
		close_typed(a);
	return err;
}

static void add_typed(napi_env env, napi_value object, const char *name, const struct typed_descriptors *typed)
{
	add_descriptors(env, object, name, typed->fd, typed->count);
}

static napi_value hello_result(napi_env env, const struct adoption *a)
{
	char build[sizeof a->hello.build + 1];
	napi_value object = new_object(env);

	if (!object)
		return NULL;
	snprintf(build, sizeof build, "%.*s", (int)sizeof a->hello.build, a->hello.build);
	add_number(env, object, "version", a->hello.version);
	add_number(env, object, "pid", a->hello.pid);
	add_string(env, object, "build", build);
	add_number(env, object, "routesFd", a->type[DESCRIPTOR_ROUTES].fd[0]);
	add_number(env, object, "countersFd", a->type[DESCRIPTOR_COUNTERS].fd[0]);
	add_number(env, object, "listenFd", a->type[DESCRIPTOR_LISTENER].fd[0]);
	add_typed(env, object, "tunFds", &a->type[DESCRIPTOR_TUN]);
	add_typed(env, object, "udpFds", &a->type[DESCRIPTOR_UDP]);
	add_typed(env, object, "wakeFds", &a->type[DESCRIPTOR_DOORBELL]);
	add_number(env, object, "connectionFd", a->connection);
	return finished(env, object);
}

static napi_value adopt(napi_env env, napi_callback_info info)
{
	struct adoption a = { .connection = -1 };
	char path[PATH_BYTES], subject[PATH_BYTES + sizeof a.fault + 2];
	napi_value argv[2], result;
	int timeout_ms, err;

	if (!read_arguments(env, info, 2, argv) || !read_text(env, argv[0], "the path", path, sizeof path) ||
	    !read_int(env, argv[1], "timeoutMs", &timeout_ms))
		return NULL;
	a.connection = connect_to(path, timeout_ms);
	if (a.connection < 0)
		return throw_errno(env, errno == EAGAIN ? ETIMEDOUT : errno, "connect", path);
	err = receive_hello(&a);
	if (err) {
		close(a.connection);
		snprintf(subject, sizeof subject, "%s%s%s", path, a.fault[0] != '\0' ? ", " : "", a.fault);
		return throw_errno(env, err, "recvmsg", subject);
	}
	result = hello_result(env, &a);
	if (!result) {
		close_typed(&a);
		close(a.connection);
	}
	return result;
}

void adopt_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "listenSeqpacket", listen_seqpacket);
	add_function(env, exports, "adopt", adopt);
}

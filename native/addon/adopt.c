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
/* More than any hello carries: too many are seen as a wrong count then, and not cut off by the kernel. */
#define RECEIVED_MAX 64

struct adoption {
	struct hello hello;
	int connection;
	size_t count;
	int fds[RECEIVED_MAX];
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

static void close_all(struct adoption *a)
{
	for (size_t i = 0; i < a->count; i++)
		close(a->fds[i]);
	a->count = 0;
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

static void keep_descriptors(struct msghdr *message, struct adoption *a)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
			int fd;
			memcpy(&fd, (const char *)c + at, sizeof fd);
			if (a->count < RECEIVED_MAX)
				a->fds[a->count++] = fd;
			else
				close(fd);
		}
	}
}

static bool hello_consistent(const struct adoption *a)
{
	const struct hello *hello = &a->hello;
	return hello->magic == LAYOUT_MAGIC && hello->tun_queues <= QUEUES_MAX && hello->udp_sockets <= QUEUES_MAX &&
	       hello->threads <= THREADS_MAX &&
	       hello->descriptors == 3 + hello->tun_queues + hello->udp_sockets + hello->threads &&
	       hello->descriptors == a->count;
}

/* Returns 0 with descriptors in `a`, or an errno with none. */
static int receive_hello(struct adoption *a)
{
	/* Room for one byte more than a hello, so that a longer message is detected. */
	char bytes[sizeof(struct hello) + 1];
	union {
		char space[CMSG_SPACE(RECEIVED_MAX * sizeof(int))];
		struct cmsghdr aligned;
	} control;
	struct iovec iov = { .iov_base = bytes, .iov_len = sizeof bytes };
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
	};
	ssize_t length;

	do
		length = recvmsg(a->connection, &message, MSG_CMSG_CLOEXEC);
	while (length < 0 && errno == EINTR);
	if (length < 0)
		return errno == EAGAIN ? ETIMEDOUT : errno;
	keep_descriptors(&message, a);
	if (length == (ssize_t)sizeof a->hello && !(message.msg_flags & MSG_CTRUNC)) {
		memcpy(&a->hello, bytes, sizeof a->hello);
		if (hello_consistent(a))
			return 0;
	}
	close_all(a);
	return length == 0 ? ECONNRESET : EPROTO;
}

static napi_value hello_result(napi_env env, const struct adoption *a)
{
	char build[sizeof a->hello.build + 1];
	const int *udp = a->fds + 3 + a->hello.tun_queues;
	napi_value object = new_object(env);

	if (!object)
		return NULL;
	snprintf(build, sizeof build, "%.*s", (int)sizeof a->hello.build, a->hello.build);
	add_number(env, object, "version", a->hello.version);
	add_number(env, object, "pid", a->hello.pid);
	add_string(env, object, "build", build);
	add_number(env, object, "routesFd", a->fds[0]);
	add_number(env, object, "countersFd", a->fds[1]);
	add_number(env, object, "listenFd", a->fds[2]);
	add_descriptors(env, object, "tunFds", a->fds + 3, a->hello.tun_queues);
	add_descriptors(env, object, "udpFds", udp, a->hello.udp_sockets);
	add_descriptors(env, object, "wakeFds", udp + a->hello.udp_sockets, a->hello.threads);
	add_number(env, object, "connectionFd", a->connection);
	return finished(env, object);
}

static napi_value adopt(napi_env env, napi_callback_info info)
{
	struct adoption a = { .connection = -1 };
	char path[PATH_BYTES];
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
		return throw_errno(env, err, "recvmsg", path);
	}
	result = hello_result(env, &a);
	if (!result) {
		close_all(&a);
		close(a.connection);
	}
	return result;
}

void adopt_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "listenSeqpacket", listen_seqpacket);
	add_function(env, exports, "adopt", adopt);
}

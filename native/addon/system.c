/* Single system calls: doorbells, locks, closing, datagrams and writes that do not block, sd_notify, the boot clock, capabilities. */
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static napi_value event_fd(napi_env env, napi_callback_info info)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	(void)info;
	return fd < 0 ? throw_errno(env, errno, "eventfd", NULL) : new_descriptor(env, fd);
}

static napi_value ring(napi_env env, napi_callback_info info)
{
	const uint64_t one = 1;
	napi_value argv[1];
	int fd;

	if (!read_arguments(env, info, 1, argv) || !read_descriptor(env, argv[0], &fd))
		return NULL;
	/* EAGAIN: the count is at its maximum, so the doorbell is ringing already. */
	if (write(fd, &one, sizeof one) < 0 && errno != EAGAIN)
		return throw_errno(env, errno, "write", NULL);
	return NULL;
}

static napi_value close_fd(napi_env env, napi_callback_info info)
{
	napi_value argv[1];
	int fd;

	if (!read_arguments(env, info, 1, argv) || !read_descriptor(env, argv[0], &fd))
		return NULL;
	/* Linux has closed the descriptor after EINTR too. */
	if (close(fd) < 0 && errno != EINTR)
		return throw_errno(env, errno, "close", NULL);
	return NULL;
}

static napi_value lock_file(napi_env env, napi_callback_info info)
{
	char path[PATH_BYTES];
	napi_value argv[1];
	int fd, err;

	if (!read_arguments(env, info, 1, argv) || !read_text(env, argv[0], "the path", path, sizeof path))
		return NULL;
	fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return throw_errno(env, errno, "open", path);
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return new_descriptor(env, fd);
	err = errno;
	close(fd);
	return err == EWOULDBLOCK ? NULL : throw_errno(env, err, "flock", path);
}

/* A socket takes what fits; a pipe or a terminal that poll(2) calls writable takes PIPE_BUF bytes without blocking. */
static ssize_t write_some(int fd, const void *bytes, size_t length)
{
	ssize_t count = send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (count >= 0 || errno != ENOTSOCK)
		return count;
	return write(fd, bytes, length < PIPE_BUF ? length : PIPE_BUF);
}

static napi_value write_now(napi_env env, napi_callback_info info)
{
	napi_typedarray_type type;
	napi_value argv[3];
	double timeout_ms;
	size_t length;
	void *bytes;
	int fd;

	if (!read_arguments(env, info, 3, argv) || !read_descriptor(env, argv[0], &fd) ||
	    !read_number(env, argv[2], "timeoutMs", &timeout_ms))
		return NULL;
	if (napi_get_typedarray_info(env, argv[1], &type, &length, &bytes, NULL, NULL) != napi_ok ||
	    type != napi_uint8_array)
		return throw_type(env, "the bytes", "a Uint8Array");
	struct pollfd room = { .fd = fd, .events = POLLOUT };
	const int ready = poll(&room, 1, timeout_ms < INT_MAX ? (int)timeout_ms : INT_MAX);
	const ssize_t count = ready > 0 ? write_some(fd, bytes, length) : ready;
	if (count < 0 && errno != EAGAIN && errno != EINTR)
		return throw_errno(env, errno, ready > 0 ? "write" : "poll", NULL);
	return new_number(env, count < 0 ? 0 : (double)count);
}

/* An address of unix(7) for the path, or for the abstract name that begins with '@'. Returns its length. */
static socklen_t unix_address(struct sockaddr_un *address, const char *path)
{
	const size_t length = strlen(path);

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(address->sun_path, path, length);
	if (path[0] == '@')
		address->sun_path[0] = '\0';
	/* The length excludes the NUL, which would become part of an abstract name. */
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

static napi_value connect_datagram(napi_env env, napi_callback_info info)
{
	struct sockaddr_un address;
	char path[sizeof address.sun_path];
	napi_value argv[1];
	int fd, err;

	if (!read_arguments(env, info, 1, argv) || !read_text(env, argv[0], "the socket", path, sizeof path))
		return NULL;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return throw_errno(env, errno, "socket", NULL);
	const socklen_t length = unix_address(&address, path);
	if (connect(fd, (struct sockaddr *)&address, length) == 0)
		return new_descriptor(env, fd);
	err = errno;
	close(fd);
	return throw_errno(env, err, "connect", path);
}

/* A service manager that reads nothing for a second does not get the state. */
static const struct timeval notify_limit = { .tv_sec = 1 };

static napi_value notify(napi_env env, napi_callback_info info)
{
	struct sockaddr_un address;
	char state[PATH_BYTES], path[sizeof address.sun_path];
	napi_value argv[2];
	int fd, err = 0;

	if (!read_arguments(env, info, 2, argv) || !read_text(env, argv[0], "the socket", path, sizeof path) ||
	    !read_text(env, argv[1], "the state", state, sizeof state))
		return NULL;
	const socklen_t length = unix_address(&address, path);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return throw_errno(env, errno, "socket", NULL);
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &notify_limit, sizeof notify_limit);
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0)
		err = errno;
	close(fd);
	return err ? throw_errno(env, err, "sendto", path) : NULL;
}

static napi_value boot_ms(napi_env env, napi_callback_info info)
{
	struct timespec now;
	(void)info;
	if (clock_gettime(CLOCK_BOOTTIME, &now) < 0)
		return throw_errno(env, errno, "clock_gettime", NULL);
	return new_number(env, (double)now.tv_sec * 1000 + (double)(now.tv_nsec / 1000000));
}

/* The capabilities that tartand asks for (capabilities(7)). Returns false for any other name. */
static bool capability_number(const char *name, uint32_t *number)
{
	static const struct { const char *name; uint32_t number; } known[] = {
		{ "CAP_NET_ADMIN", CAP_NET_ADMIN },
		{ "CAP_SETGID", CAP_SETGID },
		{ "CAP_SETUID", CAP_SETUID },
	};

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (strcmp(known[i].name, name) == 0) {
			*number = known[i].number;
			return true;
		}
	}
	return false;
}

static napi_value has_capability(napi_env env, napi_callback_info info)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct words[_LINUX_CAPABILITY_U32S_3] = { 0 };
	char name[32];
	uint32_t number;
	napi_value argv[1], has;

	if (!read_arguments(env, info, 1, argv) || !read_text(env, argv[0], "the capability", name, sizeof name))
		return NULL;
	if (!capability_number(name, &number))
		return throw_type(env, "the capability", "CAP_NET_ADMIN, CAP_SETGID or CAP_SETUID");
	if (syscall(SYS_capget, &header, words) < 0)
		return throw_errno(env, errno, "capget", NULL);
	const bool is_effective = (words[number / 32].effective >> number % 32 & 1) != 0;
	return ok(env, napi_get_boolean(env, is_effective, &has)) ? has : NULL;
}

void system_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "eventFd", event_fd);
	add_function(env, exports, "ring", ring);
	add_function(env, exports, "closeFd", close_fd);
	add_function(env, exports, "lockFile", lock_file);
	add_function(env, exports, "connectDatagram", connect_datagram);
	add_function(env, exports, "writeNow", write_now);
	add_function(env, exports, "notify", notify);
	add_function(env, exports, "bootMs", boot_ms);
	add_function(env, exports, "hasCapability", has_capability);
}

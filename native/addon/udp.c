/* UDP sockets of the underlay. They are bound to one address, so that peers see the outer source they expect. */
#include "addon.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The FORCE option ignores the limit of sysctl net.core.[rw]mem_max, but needs CAP_NET_ADMIN. */
static int set_buffer(int fd, int force, int plain, int bytes)
{
	if (setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof bytes) == 0)
		return 0;
	return setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes);
}

static int get_buffer(int fd, int option)
{
	int bytes = 0;
	socklen_t length = sizeof bytes;
	/* The kernel returns twice the size, for its own overhead (socket(7)). */
	return getsockopt(fd, SOL_SOCKET, option, &bytes, &length) < 0 ? 0 : bytes / 2;
}

/* Returns 0 or an errno, with the call that failed in `step`. */
static int prepare(int fd, const struct sockaddr_in *address, int buffer_bytes, bool reuse_port, const char **step)
{
	int on = 1;
	*step = "setsockopt";
	if (reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0)
		return errno;
	if (set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, buffer_bytes) < 0 ||
	    set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, buffer_bytes) < 0)
		return errno;
	*step = "bind";
	if (bind(fd, (const struct sockaddr *)address, sizeof *address) < 0)
		return errno;
	return 0;
}

static napi_value udp_result(napi_env env, int fd)
{
	napi_value udp = new_object(env);
	if (!udp)
		return NULL;
	add_number(env, udp, "fd", fd);
	add_number(env, udp, "receiveBuffer", get_buffer(fd, SO_RCVBUF));
	add_number(env, udp, "sendBuffer", get_buffer(fd, SO_SNDBUF));
	return finished(env, udp);
}

static napi_value open_udp(napi_env env, napi_callback_info info)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	char subject[INET_ADDRSTRLEN + 8], text[INET_ADDRSTRLEN];
	const char *step;
	napi_value argv[4], udp;
	uint32_t ip;
	uint16_t port;
	bool reuse_port;
	int fd, err, buffer_bytes;

	if (!read_arguments(env, info, 4, argv) || !read_u32(env, argv[0], "address", &ip) ||
	    !read_u16(env, argv[1], "port", &port) || !read_int(env, argv[2], "bufferBytes", &buffer_bytes) ||
	    !read_bool(env, argv[3], "reusePort", &reuse_port))
		return NULL;
	address.sin_addr.s_addr = htonl(ip);
	address.sin_port = htons(port);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return throw_errno(env, errno, "socket", NULL);
	err = prepare(fd, &address, buffer_bytes, reuse_port, &step);
	if (err) {
		close(fd);
		inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
		snprintf(subject, sizeof subject, "%s:%u", text, port);
		return throw_errno(env, err, step, subject);
	}
	udp = udp_result(env, fd);
	if (!udp)
		close(fd);
	return udp;
}

/* Sets whether later sockets may share the address of a socket, which was the only one until now. */
static napi_value share_udp(napi_env env, napi_callback_info info)
{
	napi_value argv[2];
	bool share;
	int fd;

	if (!read_arguments(env, info, 2, argv) || !read_descriptor(env, argv[0], &fd) ||
	    !read_bool(env, argv[1], "share", &share))
		return NULL;
	const int on = share;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0)
		return throw_errno(env, errno, "SO_REUSEPORT", NULL);
	return NULL;
}

static napi_value udp_name(napi_env env, napi_callback_info info)
{
	struct sockaddr_in address = { .sin_family = AF_UNSPEC };
	socklen_t length = sizeof address;
	napi_value argv[1], name;
	int fd;

	if (!read_arguments(env, info, 1, argv) || !read_descriptor(env, argv[0], &fd))
		return NULL;
	if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		return throw_errno(env, errno, "getsockname", NULL);
	if (address.sin_family != AF_INET)
		return throw_errno(env, EAFNOSUPPORT, "getsockname", NULL);
	name = new_object(env);
	if (!name)
		return NULL;
	add_number(env, name, "address", ntohl(address.sin_addr.s_addr));
	add_number(env, name, "port", ntohs(address.sin_port));
	return finished(env, name);
}

/* Datagrams that the kernel dropped at a socket since it was opened: no room in its buffer, or a bad checksum. */
static napi_value udp_drops(napi_env env, napi_callback_info info)
{
	uint32_t words[SK_MEMINFO_VARS] = { 0 };
	socklen_t bytes = sizeof words;
	napi_value argv[1], drops;
	int fd;

	if (!read_arguments(env, info, 1, argv) || !read_descriptor(env, argv[0], &fd))
		return NULL;
	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, words, &bytes) < 0)
		return throw_errno(env, errno, "SO_MEMINFO", NULL);
	return ok(env, napi_create_uint32(env, words[SK_MEMINFO_DROPS], &drops)) ? drops : NULL;
}

void udp_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "openUdp", open_udp);
	add_function(env, exports, "shareUdp", share_udp);
	add_function(env, exports, "udpName", udp_name);
	add_function(env, exports, "udpDrops", udp_drops);
}

/* Opens netlink(7) sockets and sends on them. watch.c reads what arrives. */
#include "addon.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define GROUPS_MAX 64

static int prepare(int fd, const int *groups, uint32_t count, int buffer_bytes)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	int on = 1;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer_bytes, sizeof buffer_bytes) < 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes) < 0)
		return errno;
	if (setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on) < 0 ||
	    setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on) < 0)
		return errno;
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		return errno;
	for (uint32_t i = 0; i < count; i++) {
		if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof groups[i]) < 0)
			return errno;
	}
	return 0;
}

static bool read_groups(napi_env env, napi_value list, int *groups, uint32_t *count)
{
	napi_value value;
	if (napi_get_array_length(env, list, count) != napi_ok || *count > GROUPS_MAX) {
		throw_type(env, "groups", "an array of at most 64 group numbers");
		return false;
	}
	for (uint32_t i = 0; i < *count; i++) {
		if (!ok(env, napi_get_element(env, list, i, &value)) || !read_int(env, value, "a group", &groups[i]))
			return false;
	}
	return true;
}

static napi_value netlink_open(napi_env env, napi_callback_info info)
{
	int groups[GROUPS_MAX], fd, err, buffer_bytes;
	uint16_t protocol;
	uint32_t count;
	napi_value argv[3];

	if (!read_arguments(env, info, 3, argv) || !read_u16(env, argv[0], "protocol", &protocol) ||
	    !read_groups(env, argv[1], groups, &count) ||
	    !read_int(env, argv[2], "receiveBufferBytes", &buffer_bytes))
		return NULL;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
	if (fd < 0)
		return throw_errno(env, errno, "socket", "AF_NETLINK");
	err = prepare(fd, groups, count, buffer_bytes);
	if (err) {
		close(fd);
		return throw_errno(env, err, "setsockopt", "AF_NETLINK");
	}
	return new_descriptor(env, fd);
}

static napi_value netlink_send(napi_env env, napi_callback_info info)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	napi_typedarray_type type;
	napi_value argv[2];
	size_t length;
	void *bytes;
	int fd;

	if (!read_arguments(env, info, 2, argv) || !read_descriptor(env, argv[0], &fd))
		return NULL;
	if (napi_get_typedarray_info(env, argv[1], &type, &length, &bytes, NULL, NULL) != napi_ok ||
	    type != napi_uint8_array)
		return throw_type(env, "the message", "a Uint8Array");
	if (sendto(fd, bytes, length, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
		return throw_errno(env, errno, "sendto", "AF_NETLINK");
	return NULL;
}

void netlink_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "netlinkOpen", netlink_open);
	add_function(env, exports, "netlinkSend", netlink_send);
}

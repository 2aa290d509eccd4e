/* TUN links (Documentation/networking/tuntap.rst). The first queue makes the link, and fails if the link exists. */
#include "../shared/layout.h"
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int set_queue_length(const char *name)
{
	struct ifreq request = { .ifr_qlen = TUN_QUEUE_PACKETS };
	int err = 0;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
	if (ioctl(fd, SIOCSIFTXQLEN, &request) < 0)
		err = errno;
	close(fd);
	return err;
}

/* Returns 0 or an errno, with the call that failed in `step`. */
static int attach(int fd, struct ifreq *request, bool first, const char **step)
{
	unsigned flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
	if (first)
		flags |= IFF_TUN_EXCL;
	request->ifr_flags = (short)flags;
	*step = "TUNSETIFF";
	if (ioctl(fd, TUNSETIFF, request) < 0)
		return errno;
	if (!first)
		return 0;
	*step = "SIOCSIFTXQLEN";
	return set_queue_length(request->ifr_name);
}

static napi_value open_tun(napi_env env, napi_callback_info info)
{
	struct ifreq request = { .ifr_flags = 0 };
	const char *step;
	napi_value argv[2], tun;
	bool first;
	int fd, err;

	if (!read_arguments(env, info, 2, argv) ||
	    !read_text(env, argv[0], "the link name", request.ifr_name, sizeof request.ifr_name) ||
	    !read_bool(env, argv[1], "first", &first))
		return NULL;
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return throw_errno(env, errno, "open", "/dev/net/tun");
	err = attach(fd, &request, first, &step);
	if (err) {
		close(fd);
		return throw_errno(env, err, step, request.ifr_name);
	}
	tun = new_object(env);
	if (tun) {
		add_number(env, tun, "fd", fd);
		add_string(env, tun, "name", request.ifr_name);
		tun = finished(env, tun);
	}
	if (!tun)
		close(fd);
	return tun;
}

static napi_value tun_name(napi_env env, napi_callback_info info)
{
	struct ifreq request = { .ifr_flags = 0 };
	napi_value argv[1], name;
	int fd;

	if (!read_arguments(env, info, 1, argv) || !read_descriptor(env, argv[0], &fd))
		return NULL;
	if (ioctl(fd, TUNGETIFF, &request) < 0)
		return throw_errno(env, errno, "TUNGETIFF", NULL);
	return ok(env, napi_create_string_utf8(env, request.ifr_name, strnlen(request.ifr_name, IFNAMSIZ), &name))
		       ? name
		       : NULL;
}

void tun_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "openTun", open_tun);
	add_function(env, exports, "tunName", tun_name);
}

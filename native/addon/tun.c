/* TUN links (Documentation/networking/tuntap.rst). The first queue makes the link, and fails if the link exists. */
#include "../shared/layout.h"
#include "addon.h"
#include "rtnetlink.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* By rtnetlink, because SIOCSIFTXQLEN wants CAP_NET_ADMIN outside of every user namespace. Returns 0 or an errno. */
static int set_queue_length(const char *name, int packets)
{
	struct rtnl_request r;
	struct ifinfomsg *head = rtnl_begin(&r, RTM_NEWLINK, 0, sizeof *head);

	head->ifi_index = (int)if_nametoindex(name);
	if (head->ifi_index == 0)
		return errno;
	rtnl_add_u32(&r, IFLA_TXQLEN, (uint32_t)packets);
	return rtnl_send(&r, NULL, NULL);
}

/* Returns 0 or an errno. */
static int attach(int fd, struct ifreq *request, bool first)
{
	unsigned flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
	if (first)
		flags |= IFF_TUN_EXCL;
	request->ifr_flags = (short)flags;
	return ioctl(fd, TUNSETIFF, request) < 0 ? errno : 0;
}

static napi_value open_tun(napi_env env, napi_callback_info info)
{
	struct ifreq request = { .ifr_flags = 0 };
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
	err = attach(fd, &request, first);
	if (err) {
		close(fd);
		return throw_errno(env, err, "TUNSETIFF", request.ifr_name);
	}
	/* Nobody has asked the kernel for TSO yet. The link works with another queue too: setTunQueue tells what failed. */
	if (first)
		set_queue_length(request.ifr_name, TUN_QUEUE_PACKETS_WITHOUT_TSO);
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

static napi_value set_tun_queue(napi_env env, napi_callback_info info)
{
	char name[IFNAMSIZ];
	napi_value argv[2];
	int packets, err;

	if (!read_arguments(env, info, 2, argv) || !read_text(env, argv[0], "the link name", name, sizeof name) ||
	    !read_int(env, argv[1], "packets", &packets))
		return NULL;
	err = set_queue_length(name, packets);
	return err ? throw_errno(env, err, "RTM_NEWLINK", name) : NULL;
}

void tun_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "openTun", open_tun);
	add_function(env, exports, "tunName", tun_name);
	add_function(env, exports, "setTunQueue", set_tun_queue);
}

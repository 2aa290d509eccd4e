/*
 * A real TUN in a network namespace of its own, which ends with the process. Its other end is a packet socket with
 * virtio headers. The kernel hands what is written there to the reader of the TUN, and cuts what the TUN does not take.
 * What is written to the TUN can be read there.
 */
#ifndef TARTAN_TUN_DEVICE_H
#define TARTAN_TUN_DEVICE_H

#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Since kernel 4.20. */
#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif
/* Less than IPv6 needs, so that the kernel sends no packets of its own. */
#define DEVICE_MTU 1279

static inline void device_up(int socket, const char *name, int mtu)
{
	struct ifreq r = { .ifr_mtu = mtu };

	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
	if (mtu != 0 && ioctl(socket, SIOCSIFMTU, &r) < 0)
		abort();
	r.ifr_flags = IFF_UP;
	if (ioctl(socket, SIOCSIFFLAGS, &r) < 0)
		abort();
}

static inline int device_outside(const char *name)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP),
				  .sll_ifindex = (int)if_nametoindex(name) };
	int on = 1, fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_IP));

	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) < 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof at) < 0)
		abort();
	return fd;
}

/* Opens both ends: pair[0] is the outside. False with the step that failed if this process may not have a TUN. */
static inline bool device_open(int pair[2], const char **step)
{
	struct ifreq r = { .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };

	*step = "a network namespace";
	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return false;
	/* The device belongs to the namespace in which this is opened. */
	*step = "/dev/net/tun";
	pair[1] = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (pair[1] < 0)
		return false;
	snprintf(r.ifr_name, sizeof r.ifr_name, "tt%d", (int)getpid());
	int any = socket(AF_INET, SOCK_DGRAM, 0);
	if (any < 0 || ioctl(pair[1], TUNSETIFF, &r) < 0)
		abort();
	device_up(any, "lo", 0);
	device_up(any, r.ifr_name, DEVICE_MTU);
	close(any);
	pair[0] = device_outside(r.ifr_name);
	return true;
}

#endif

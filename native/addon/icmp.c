/*
 * ICMP sockets (RFC 792): a raw one (raw(7)) where CAP_NET_RAW permits it, else a ping socket (icmp(7)) where the sysctl
 * net.ipv4.ping_group_range does. What arrives has one form on both: the IP packet. A raw socket hears every echo reply
 * and every ICMP error of the host; a ping socket hears what its own requests caused, and its packets are put together
 * here from what the kernel says of them.
 */
#include "addon.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <linux/icmp.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECEIVE_BYTES (256 * 1024)

/* What a raw socket lets pass; ICMP_FILTER is a mask of what it does not. */
#define HEARD (1u << ICMP_ECHOREPLY | 1u << ICMP_DEST_UNREACH | 1u << ICMP_TIME_EXCEEDED)

static int open_raw(void)
{
	const struct icmp_filter filter = { .data = ~HEARD };
	int fd = socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_ICMP);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_RAW, ICMP_FILTER, &filter, sizeof filter) == 0)
		return fd;
	const int err = errno;
	close(fd);
	return -err;
}

/* Binds to a free identifier, which the kernel writes into each request. */
static int open_ping(uint16_t *identifier)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof address;
	const int on = 1;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_ICMP);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_IP, IP_RECVERR, &on, sizeof on) == 0 &&
	    bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
	    getsockname(fd, (struct sockaddr *)&address, &length) == 0) {
		*identifier = ntohs(address.sin_port);
		return fd;
	}
	const int err = errno;
	close(fd);
	return -err;
}

/* Returns { fd, identifier }: the caller of a raw socket, whose identifier is 0, chooses one. */
static napi_value icmp_open(napi_env env, napi_callback_info info)
{
	const int bytes = RECEIVE_BYTES;
	uint16_t identifier = 0;
	napi_value socket;
	int fd, denied;

	if (!read_arguments(env, info, 0, NULL))
		return NULL;
	fd = denied = open_raw();
	if (fd < 0)
		fd = open_ping(&identifier);
	/* Without a right to either the first refusal says more: a ping socket is what few hosts allow. */
	if (fd < 0)
		return throw_errno(env, -denied, "socket", "IPPROTO_ICMP");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
	socket = new_object(env);
	if (socket) {
		add_number(env, socket, "fd", fd);
		add_number(env, socket, "identifier", identifier);
		socket = finished(env, socket);
	}
	if (!socket)
		close(fd);
	return socket;
}

/* With DF the packet is sent whatever path MTU the kernel remembers: the question is what the path carries now. */
static napi_value icmp_send(napi_env env, napi_callback_info info)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	napi_typedarray_type type;
	napi_value argv[4];
	size_t length;
	void *bytes;
	uint32_t address;
	bool df;
	int fd;

	if (!read_arguments(env, info, 4, argv) || !read_descriptor(env, argv[0], &fd) ||
	    !read_u32(env, argv[1], "address", &address) || !read_bool(env, argv[3], "df", &df))
		return NULL;
	if (napi_get_typedarray_info(env, argv[2], &type, &length, &bytes, NULL, NULL) != napi_ok ||
	    type != napi_uint8_array)
		return throw_type(env, "the message", "a Uint8Array");
	const int discover = df ? IP_PMTUDISC_PROBE : IP_PMTUDISC_DONT;
	if (setsockopt(fd, SOL_IP, IP_MTU_DISCOVER, &discover, sizeof discover) < 0)
		return throw_errno(env, errno, "IP_MTU_DISCOVER", NULL);
	to.sin_addr.s_addr = htonl(address);
	if (sendto(fd, bytes, length, 0, (struct sockaddr *)&to, sizeof to) < 0)
		return throw_errno(env, errno, "sendto", NULL);
	return NULL;
}

static bool is_raw(int fd)
{
	int type = SOCK_RAW;
	socklen_t length = sizeof type;
	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
	return type == SOCK_RAW;
}

static void put_ip(uint8_t *at, size_t length, uint32_t source, uint32_t destination)
{
	struct iphdr ip = { .version = 4, .ihl = 5, .protocol = IPPROTO_ICMP, .tot_len = htons((uint16_t)length) };
	ip.saddr = source;
	ip.daddr = destination;
	memcpy(at, &ip, sizeof ip);
}

#define ERROR_HEADERS (2 * sizeof(struct iphdr) + sizeof(struct icmphdr))

/* The error as the ICMP message from which the kernel made it. Returns 0 for what is no ICMP error. */
static ssize_t put_error(uint8_t *buffer, struct msghdr *message, uint32_t asked, size_t quoted)
{
	struct sock_extended_err error = { 0 };
	struct sockaddr_in offender = { 0 };
	struct icmphdr icmp = { 0 };

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_IP || c->cmsg_type != IP_RECVERR ||
		    c->cmsg_len < CMSG_LEN(sizeof error + sizeof offender))
			continue;
		memcpy(&error, CMSG_DATA(c), sizeof error);
		memcpy(&offender, CMSG_DATA(c) + sizeof error, sizeof offender);
	}
	if (error.ee_origin != SO_EE_ORIGIN_ICMP)
		return 0;
	icmp.type = error.ee_type;
	icmp.code = error.ee_code;
	if (icmp.type == ICMP_DEST_UNREACH && icmp.code == ICMP_FRAG_NEEDED)
		icmp.un.frag.mtu = htons((uint16_t)error.ee_info);
	put_ip(buffer, ERROR_HEADERS + quoted, offender.sin_addr.s_addr, 0);
	memcpy(buffer + sizeof(struct iphdr), &icmp, sizeof icmp);
	put_ip(buffer + sizeof(struct iphdr) + sizeof icmp, sizeof(struct iphdr) + quoted, 0, asked);
	return (ssize_t)(ERROR_HEADERS + quoted);
}

/* Receives with room for headers of `before` bytes. Returns the length without them, or -1. */
static ssize_t receive_behind(struct msghdr *message, int fd, uint8_t *buffer, size_t size, size_t before, int flags)
{
	struct iovec iov = { .iov_base = buffer + before, .iov_len = size - before };
	message->msg_iov = &iov;
	message->msg_iovlen = 1;
	ssize_t length = recvmsg(fd, message, MSG_DONTWAIT | flags);
	message->msg_iov = NULL;
	return length;
}

/* Errors come first: while one waits, the kernel gives it as the result of every other call, too. */
static ssize_t receive_ping(int fd, uint8_t *buffer, size_t size, bool *truncated)
{
	_Alignas(struct cmsghdr) char control[256];
	struct sockaddr_in from = { 0 };
	struct msghdr message = { .msg_name = &from, .msg_namelen = sizeof from };
	const size_t before = sizeof(struct iphdr);
	ssize_t length;

	if (size < 2 * ERROR_HEADERS) {
		errno = EINVAL;
		return -1;
	}
	message.msg_control = control;
	message.msg_controllen = sizeof control;
	length = receive_behind(&message, fd, buffer, size, ERROR_HEADERS, MSG_ERRQUEUE);
	if (length >= 0)
		length = put_error(buffer, &message, from.sin_addr.s_addr, (size_t)length);
	if (length > 0)
		return length;
	message = (struct msghdr){ .msg_name = &from, .msg_namelen = sizeof from };
	length = receive_behind(&message, fd, buffer, size, before, 0);
	*truncated = message.msg_flags & MSG_TRUNC;
	if (length < 0) {
		/* What is left is an error of the way, which the queue has told or will tell. */
		errno = EAGAIN;
		return -1;
	}
	put_ip(buffer, before + (size_t)length, from.sin_addr.s_addr, 0);
	return (ssize_t)before + length;
}

static ssize_t receive_icmp(int fd, uint8_t *buffer, size_t size, bool *truncated, bool *foreign)
{
	*truncated = false;
	*foreign = false;
	if (!is_raw(fd))
		return receive_ping(fd, buffer, size, truncated);
	struct msghdr message = { 0 };
	ssize_t length = receive_behind(&message, fd, buffer, size, 0, 0);
	*truncated = message.msg_flags & MSG_TRUNC;
	return length;
}

static napi_value icmp_watch(napi_env env, napi_callback_info info)
{
	return open_watch(env, info, receive_icmp);
}

/* Bytes of the longest packet that the kernel would send to the address uncut: its route's, or a path MTU it learnt. */
static napi_value path_mtu_of(napi_env env, napi_callback_info info)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };
	napi_value argv[1];
	uint32_t address;
	int fd, err = 0, mtu = 0;
	socklen_t length = sizeof mtu;

	if (!read_arguments(env, info, 1, argv) || !read_u32(env, argv[0], "address", &address))
		return NULL;
	to.sin_addr.s_addr = htonl(address);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return throw_errno(env, errno, "socket", NULL);
	/* connect(2) of a UDP socket sends nothing: it looks up the route. */
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 || getsockopt(fd, SOL_IP, IP_MTU, &mtu, &length) < 0)
		err = errno;
	close(fd);
	return err ? throw_errno(env, err, "connect", NULL) : new_number(env, mtu);
}

void icmp_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "icmpOpen", icmp_open);
	add_function(env, exports, "icmpSend", icmp_send);
	add_function(env, exports, "icmpWatch", icmp_watch);
	add_function(env, exports, "pathMtu", path_mtu_of);
}

/* Writing to the TUN; see tun.h. Our own virtio header is checked like any other. */
#include "tun.h"
#include <errno.h>

bool tun_is_broken(int err)
{
	/* EIO: the link is down. EBADFD, EFAULT: it was deleted. */
	return err == EIO || err == EBADFD || err == EFAULT || err == EBADF || err == ENODEV || err == ENXIO;
}

enum tun_result tun_write_iov(int tun, const struct vnet_header *v, struct iovec *iov, size_t iovs, size_t bytes)
{
	/* The check reads headers only, and all of them are in iov[1]. */
	const struct packet whole = { .bytes = iov[1].iov_base, .length = bytes };
	uint8_t header[VNET_HEADER_BYTES];

	if (vnet_header_check(v, &whole) != GSO_SOUND)
		return TUN_REFUSED_HEADER;
	vnet_header_put(v, header);
	iov[0] = (struct iovec){ .iov_base = header, .iov_len = sizeof header };
	ssize_t written = writev(tun, iov, (int)iovs);
	if (written < 0 && tun_is_broken(errno))
		return TUN_BROKEN;
	return written == (ssize_t)(sizeof header + bytes) ? TUN_WRITTEN : TUN_FAILED;
}

enum tun_result tun_write(int tun, const struct packet *p)
{
	static const struct vnet_header plain = { 0 };
	struct iovec iov[2] = { [1] = { .iov_base = p->bytes, .iov_len = p->length } };

	return tun_write_iov(tun, &plain, iov, 2, p->length);
}

/* Writing to the TUN; see tun.h. The virtio header is built here and checked like one that somebody else built. */
#include "tun.h"

enum tun_result tun_write_pieces(int tun, const struct vnet_header *v, struct iovec *piece, size_t pieces, size_t bytes)
{
	/* The check reads headers only, and they are in the first piece. */
	const struct packet whole = { .bytes = piece[1].iov_base, .length = bytes };
	uint8_t header[VNET_HEADER_BYTES];

	if (vnet_header_check(v, &whole) != GSO_SOUND)
		return TUN_REFUSED_HEADER;
	vnet_header_put(v, header);
	piece[0] = (struct iovec){ .iov_base = header, .iov_len = sizeof header };
	return writev(tun, piece, (int)pieces) == (ssize_t)(sizeof header + bytes) ? TUN_WRITTEN : TUN_FAILED;
}

enum tun_result tun_write(int tun, const struct packet *p)
{
	static const struct vnet_header plain = { 0 };
	struct iovec piece[2] = { [1] = { .iov_base = p->bytes, .iov_len = p->length } };

	return tun_write_pieces(tun, &plain, piece, 2, p->length);
}

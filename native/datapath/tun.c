/* Writing to the TUN; see tun.h. The virtio header is built here and checked like one that somebody else built. */
#include "tun.h"
#include "gso.h"
#include <unistd.h>

enum tun_result tun_write(int tun, const struct packet *p)
{
	static const struct vnet_header plain = { 0 };
	uint8_t *start = p->bytes - VNET_HEADER_BYTES;
	size_t bytes = VNET_HEADER_BYTES + p->length;

	if (vnet_header_check(&plain, p) != GSO_SOUND)
		return TUN_REFUSED_HEADER;
	vnet_header_put(&plain, start);
	return write(tun, start, bytes) == (ssize_t)bytes ? TUN_WRITTEN : TUN_FAILED;
}

/*
 * Fuzz target: any packet cut to any length. The fragments are sound and no longer, they follow each other, and hold
 * every byte of the payload once. The first two bytes of the input choose the length.
 */
#include "fragment.h"
#include "fixture.h"
#include "target.h"

static void check(const struct packet *p, const struct ipv4 *h, size_t longest)
{
	const size_t payload = h->total_bytes - h->header_bytes;
	uint8_t *room = malloc(longest + 1);
	size_t from = 0, bytes;

	for (; from < payload; from += bytes) {
		struct packet f = { .bytes = room, .length = longest };
		struct ipv4 g;
		bytes = fragment_write(p, h, longest, from, &f);
		if (bytes == 0)
			break;
		require(f.length <= longest && ipv4_parse(&f, &g) == IPV4_SOUND && g.total_bytes == f.length);
		require(g.header_bytes == h->header_bytes && f.length - g.header_bytes == bytes && !g.dont_fragment);
		require(g.fragment_offset == h->fragment_offset + from);
		require(g.more_fragments == (h->more_fragments || from + bytes < payload));
		require(memcmp(room + g.header_bytes, p->bytes + h->header_bytes + from, bytes) == 0);
	}
	require(from == payload || longest < h->header_bytes + 8);
	free(room);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	if (length < 2)
		return 0;
	const size_t longest = (size_t)(input[0] << 8 | input[1]) % 2048;
	uint8_t *bytes = malloc(length);
	struct packet p = { .bytes = bytes, .length = length - 2 };
	struct ipv4 h;

	memcpy(bytes, input + 2, length - 2);
	packet_put_u16(&p, 10, 0);
	packet_put_u16(&p, 10, checksum_make(&p, 0, (size_t)(packet_u8(&p, 0) & 15) * 4));
	if (ipv4_parse(&p, &h) == IPV4_SOUND && !ipv4_fragment_impossible(&h)) {
		p.length = h.total_bytes;
		check(&p, &h, longest);
	}
	free(bytes);
	return 0;
}

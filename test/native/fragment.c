/* fragment.c: what is cut, also in several steps, is put together again as RFC 791 says, and no byte is another one. */
#include "fragment.h"
#include "fixture.h"
#include "test.h"

#define BYTES_MAX 65536u

/* The receiver's end (RFC 791 section 3.2): fills in one fragment. */
struct whole {
	uint8_t payload[BYTES_MAX + 8];
	bool has[BYTES_MAX + 8];
	size_t end; /* 0 until the last fragment has come */
};

static void receive(struct suite *s, struct whole *w, const struct packet *f, const struct ipv4 *original)
{
	struct ipv4 h;

	CHECK(s, ipv4_parse(f, &h) == IPV4_SOUND && h.total_bytes == f->length && !ipv4_fragment_impossible(&h));
	CHECK(s, h.source == original->source && h.destination == original->destination && h.ttl == original->ttl &&
		 h.protocol == original->protocol && !h.dont_fragment);
	bool is_new = true;
	for (size_t i = h.header_bytes; i < f->length; i++) {
		size_t at = h.fragment_offset + i - h.header_bytes;
		is_new = is_new && !w->has[at];
		w->payload[at] = f->bytes[i];
		w->has[at] = true;
	}
	CHECK(s, is_new);
	if (!h.more_fragments)
		w->end = h.fragment_offset + f->length - h.header_bytes;
}

/* Cuts the packet to `longest`, and what is longer than `narrower` once more, as a second narrow link would. */
static void cut(struct suite *s, struct whole *w, const struct packet *p, size_t longest, size_t narrower,
		const struct ipv4 *original)
{
	struct ipv4 h;
	uint8_t *room = malloc(longest); /* exact, so that the sanitizer sees a write past it */

	ipv4_parse(p, &h);
	for (size_t from = 0, bytes; from < p->length - h.header_bytes; from += bytes) {
		struct packet f = { .bytes = room, .length = longest };
		bytes = fragment_write(p, &h, longest, from, &f);
		if (!CHECK(s, bytes > 0 && f.length <= longest))
			break;
		CHECK(s, packet_u16(&f, IPV4_AT_IDENTIFICATION) == 0x1234);
		if (narrower != 0 && f.length > narrower)
			cut(s, w, &f, narrower, 0, original);
		else
			receive(s, w, &f, original);
	}
	free(room);
}

static struct packet make(struct suite *s, uint8_t *bytes, size_t header, size_t total)
{
	struct recipe r = { .source = ADDRESS(10, 5, 1, 9), .destination = ADDRESS(10, 5, 2, 9), .protocol = 200,
			    .header = header, .total = total };
	struct packet p = packet_make(bytes, &r);

	for (size_t at = 20; at < header; at++)
		packet_put_u8(&p, at, 1);
	for (size_t at = header; at < total; at++)
		packet_put_u8(&p, at, (uint8_t)suite_random(s));
	packet_put_u16(&p, IPV4_AT_IDENTIFICATION, 0x1234);
	packet_put_u16(&p, IPV4_AT_CHECKSUM, 0);
	packet_put_u16(&p, IPV4_AT_CHECKSUM, checksum_make(&p, 0, header));
	return p;
}

static void put_together(struct suite *s)
{
	uint8_t *bytes = malloc(BYTES_MAX);
	struct whole *w = malloc(sizeof *w);
	struct ipv4 h;

	for (int i = 0; i < 3000; i++) {
		const size_t header = 20 + 4 * suite_below(s, 11);
		const size_t total = i % 100 == 0 ? 65535 : header + 1 + suite_below(s, i % 10 == 0 ? 20000 : 3000);
		const size_t longest = header + 8 + suite_below(s, 1500), narrower = header + 8 + suite_below(s, 700);
		struct packet p = make(s, bytes, header, total);
		ipv4_parse(&p, &h);
		memset(w, 0, sizeof *w);
		cut(s, w, &p, longest, i % 2 == 0 ? narrower : 0, &h);
		if (!CHECK(s, w->end == total - header && memcmp(w->payload, bytes + header, w->end) == 0))
			break;
	}
	free(w);
	free(bytes);
}

/* The first fragment keeps all options, the others those with the copied bit (RFC 791 section 3.1). */
static void options(struct suite *s)
{
	/* record route (7), a no-operation, router alert (148), stream id (136), end */
	const struct recipe r = { .source = 1, .destination = 2, .header = 36, .total = 100,
				  .options = { 7, 3, 4, 1, 148, 4, 0, 9, 136, 4, 7, 7, 0, 0, 0, 0 } };
	const uint8_t copied[16] = { 1, 1, 1, 1, 148, 4, 0, 9, 136, 4, 7, 7, 0, 0, 0, 0 };
	/* A length that makes no sense ends the options; what stands there stays. */
	const struct recipe bad = { .source = 1, .destination = 2, .header = 24, .total = 100, .options = { 7, 9, 4, 0 } };
	uint8_t bytes[128], room[64];
	struct packet p = packet_make(bytes, &r), f = { .bytes = room, .length = sizeof room };
	struct ipv4 h;

	ipv4_parse(&p, &h);
	CHECK(s, fragment_write(&p, &h, 52, 0, &f) == 16 && memcmp(room + 20, r.options, 16) == 0);
	f.length = sizeof room;
	CHECK(s, fragment_write(&p, &h, 52, 16, &f) == 16 && memcmp(room + 20, copied, 16) == 0);
	CHECK(s, ipv4_parse(&f, &h) == IPV4_SOUND && h.fragment_offset == 16 && h.more_fragments);
	p = packet_make(bytes, &bad);
	ipv4_parse(&p, &h);
	f.length = sizeof room;
	CHECK(s, fragment_write(&p, &h, 40, 16, &f) == 16 && memcmp(room + 20, bad.options, 4) == 0);
}

/* The offsets and the last bit of a fragment go on from its own. */
static void of_a_fragment(struct suite *s)
{
	const struct recipe middle = { .source = 1, .destination = 2, .total = 20 + 64, .fragment = FRAGMENT_MF | 10 };
	uint8_t bytes[128], room[64];
	struct packet p = packet_make(bytes, &middle), f = { .bytes = room, .length = sizeof room };
	struct ipv4 h, g;

	ipv4_parse(&p, &h);
	CHECK(s, fragment_write(&p, &h, 60, 0, &f) == 40 && ipv4_parse(&f, &g) == IPV4_SOUND);
	CHECK(s, g.fragment_offset == 80 && g.more_fragments);
	f.length = sizeof room;
	CHECK(s, fragment_write(&p, &h, 60, 40, &f) == 24 && ipv4_parse(&f, &g) == IPV4_SOUND);
	CHECK(s, g.fragment_offset == 120 && g.more_fragments);
}

static void no_room(struct suite *s)
{
	const struct recipe r = { .source = 1, .destination = 2, .total = 100 };
	uint8_t bytes[128], room[64];
	struct packet p = packet_make(bytes, &r), f = { .bytes = room, .length = 40 };
	struct ipv4 h;

	ipv4_parse(&p, &h);
	CHECK(s, fragment_write(&p, &h, 20, 0, &f) == 0 && fragment_write(&p, &h, 27, 0, &f) == 0);
	CHECK(s, fragment_write(&p, &h, 60, 0, &f) == 0 && fragment_write(&p, &h, 60, 80, &f) == 0 && f.length == 40);
}

int main(void)
{
	struct suite s = { .name = "fragment", .random = 91 };

	put_together(&s);
	options(&s);
	of_a_fragment(&s);
	no_room(&s);
	return suite_end(&s);
}

/* checksum.c, and the TTL of ipv4.c, against sums that are computed slowly. */
#include "fixture.h"
#include "test.h"

/* Adds one 16-bit word at a time, and the carry at once: slow and obviously right. */
static uint16_t naive_sum(const uint8_t *bytes, size_t length)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < length; i++) {
		sum += i % 2 == 0 ? (uint32_t)bytes[i] << 8 : bytes[i];
		if (sum > 0xffff)
			sum -= 0xffff;
	}
	return (uint16_t)sum;
}

static void sum_equals_twin(struct suite *s)
{
	uint8_t bytes[97];

	for (int round = 0; round < 2000; round++) {
		size_t length = suite_below(s, sizeof bytes);
		struct packet p = { .bytes = bytes, .length = length };
		for (size_t i = 0; i < length; i++)
			bytes[i] = (uint8_t)(round % 5 == 0 ? 0xff : suite_random(s));
		CHECK(s, checksum_sum(&p, 0, length) == naive_sum(bytes, length));
	}
}

static void ttl_keeps_the_checksum_right(struct suite *s)
{
	uint8_t bytes[64];

	for (int round = 0; round < 20000; round++) {
		struct recipe r = { .source = suite_random(s), .destination = suite_random(s), .fragment = (uint16_t)suite_random(s),
				    .ttl = (uint8_t)(1 + suite_below(s, 254)), .protocol = (uint8_t)suite_random(s) };
		struct packet p = packet_make(bytes, &r);
		uint8_t before = packet_u8(&p, 8);
		ipv4_decrement_ttl(&p);
		uint16_t incremental = packet_u16(&p, 10);
		packet_put_u16(&p, 10, 0);
		CHECK(s, packet_u8(&p, 8) == before - 1);
		CHECK(s, incremental == checksum_make(&p, 0, 20));
	}
}

/* The fast form equals the slow one for short ranges of every length and alignment, and for long ones. */
static void fast_equals_twin(struct suite *s)
{
	uint8_t *bytes = malloc(65536 + 64);

	for (size_t i = 0; i < 65536 + 64; i++)
		bytes[i] = (uint8_t)(suite_below(s, 3) ? suite_random(s) : 0xff);
	for (size_t length = 0; length < 400; length++) {
		for (size_t at = 0; at < 33; at += 1 + length % 4) {
			uint8_t *exact = malloc(at + length);
			struct packet p = { .bytes = exact, .length = at + length };
			memcpy(exact, bytes + length, at + length);
			uint16_t expected = naive_sum(exact + at, length);
			CHECK(s, checksum_fast(&p, at, length) == expected && checksum_scalar(&p, at, length) == expected);
			CHECK(s, checksum_fast(&p, at, length + 9) == expected);
			free(exact);
		}
	}
	struct packet all = { .bytes = bytes, .length = 65536 + 64 };
	CHECK(s, checksum_fast(&all, 3, 65531) == naive_sum(bytes + 3, 65531));
	CHECK(s, checksum_scalar(&all, 3, 65531) == naive_sum(bytes + 3, 65531));
	CHECK(s, checksum_fast(&all, all.length, 1) == 0 && checksum_fast(&all, SIZE_MAX, 1) == 0);
	memset(bytes, 0xff, all.length);
	CHECK(s, checksum_fast(&all, 0, all.length) == 0xffff && checksum_scalar(&all, 0, all.length) == 0xffff);
	free(bytes);
}

static void known_values(struct suite *s)
{
	/* RFC 1624 section 4: header with checksum 0xdd2f, one word from 0x5555 to 0x3285 gives 0x0000. */
	CHECK(s, checksum_adjust(0xdd2f, 0x5555, 0x3285) == 0x0000);
	/* RFC 1071 section 3. */
	uint8_t bytes[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };
	struct packet p = { .bytes = bytes, .length = sizeof bytes };
	CHECK(s, checksum_sum(&p, 0, sizeof bytes) == 0xddf2);
}

static void access_stops_at_the_end(struct suite *s)
{
	uint8_t *bytes = malloc(3); /* exactly as long as the packet, so that the sanitizer sees an access past it */
	struct packet p = { .bytes = bytes, .length = 3 };

	memcpy(bytes, "\1\2\3", 3);
	CHECK(s, packet_u16(&p, 1) == 0x0203);
	CHECK(s, packet_u16(&p, 2) == 0);
	CHECK(s, packet_u32(&p, 0) == 0 && packet_u32(&p, SIZE_MAX - 1) == 0);
	CHECK(s, packet_u8(&p, 3) == 0 && packet_u8(&p, SIZE_MAX) == 0 && packet_u16(&p, SIZE_MAX) == 0);
	packet_put_u16(&p, 2, 0xffff);
	packet_put_u32(&p, SIZE_MAX - 1, 0xffffffff);
	packet_put_u32(&p, 0, 0xffffffff);
	CHECK(s, memcmp(bytes, "\1\2\3", 3) == 0);
	CHECK(s, checksum_sum(&p, 0, 100) == naive_sum(bytes, 2)); /* the last byte is half a word, which is not read */
	free(bytes);
}

int main(void)
{
	struct suite s = { .name = "checksum", .random = 1 };

	sum_equals_twin(&s);
	ttl_keeps_the_checksum_right(&s);
	fast_equals_twin(&s);
	known_values(&s);
	access_stops_at_the_end(&s);
	return suite_end(&s);
}

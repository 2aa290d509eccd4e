/* See probe.h. */
#include "probe.h"
#include "ipv4.h"

#define FAMILY 4u
#define AT_VERSION 1u
#define AT_KIND 2u
#define AT_FLAGS 3u
#define AT_SEQUENCE 4u
#define AT_OPAQUE 8u
#define AT_FAMILY 16u
#define AT_LENGTH 17u
#define AT_PREFIX 18u
#define AT_ARRIVED 22u
#define FLAG_LANE_PORT 1u

static bool is_sound(const struct packet *p)
{
	const uint8_t kind = packet_u8(p, AT_KIND), length = packet_u8(p, AT_LENGTH);
	const uint16_t arrived = packet_u16(p, AT_ARRIVED);

	if (p->length < PROBE_BYTES || packet_u8(p, 0) != PROBE_TYPE || packet_u8(p, AT_VERSION) != PROBE_VERSION ||
	    packet_u8(p, AT_FAMILY) != FAMILY)
		return false;
	if (length == 0 || length > 32 || (packet_u32(p, AT_PREFIX) & ~ipv4_mask(length)) != 0)
		return false;
	/* No answer is longer than its question. */
	return kind == PROBE_QUESTION ? arrived == 0 : kind == PROBE_ANSWER && arrived >= p->length;
}

bool probe_read(const struct packet *p, struct probe *probe)
{
	if (!is_sound(p))
		return false;
	*probe = (struct probe){
		.kind = packet_u8(p, AT_KIND) == PROBE_QUESTION ? PROBE_QUESTION : PROBE_ANSWER,
		.sequence = packet_u32(p, AT_SEQUENCE),
		.opaque = (uint64_t)packet_u32(p, AT_OPAQUE) << 32 | packet_u32(p, AT_OPAQUE + 4),
		.prefix = packet_u32(p, AT_PREFIX),
		.prefix_length = packet_u8(p, AT_LENGTH),
		.arrived = packet_u16(p, AT_ARRIVED),
		.of_lane_port = (packet_u8(p, AT_FLAGS) & FLAG_LANE_PORT) != 0,
	};
	return true;
}

void probe_write(struct packet *p, const struct probe *probe)
{
	memset(p->bytes, 0, p->length);
	packet_put_u8(p, 0, PROBE_TYPE);
	packet_put_u8(p, AT_VERSION, PROBE_VERSION);
	packet_put_u8(p, AT_KIND, (uint8_t)probe->kind);
	packet_put_u8(p, AT_FLAGS, probe->of_lane_port ? FLAG_LANE_PORT : 0);
	packet_put_u32(p, AT_SEQUENCE, probe->sequence);
	packet_put_u32(p, AT_OPAQUE, (uint32_t)(probe->opaque >> 32));
	packet_put_u32(p, AT_OPAQUE + 4, (uint32_t)probe->opaque);
	packet_put_u8(p, AT_FAMILY, FAMILY);
	packet_put_u8(p, AT_LENGTH, (uint8_t)probe->prefix_length);
	packet_put_u32(p, AT_PREFIX, probe->prefix);
	packet_put_u16(p, AT_ARRIVED, probe->arrived);
}

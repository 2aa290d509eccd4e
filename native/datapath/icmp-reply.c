/* See icmp-reply.h. */
#include "icmp-reply.h"
#include "tun.h"

bool icmp_reply_allow(struct worker *w, const struct ipv4 *about)
{
	if (limiter_take(w->limiter, about->source, w->now_ns))
		return true;
	count_add(w->block, icmp_limited, 1);
	return false;
}

uint32_t icmp_reply_source(const struct self *self)
{
	return self->subnet_length < 31 ? self->subnet + 1 : self->subnet;
}

void icmp_reply_send(struct worker *w, const struct icmp_error *error, const struct packet *about,
		    const struct ipv4 *header)
{
	uint8_t room[ICMP_BYTES_MAX];
	struct packet reply = { .bytes = room, .length = ICMP_BYTES_MAX };

	icmp_build(&reply, error, icmp_reply_source(&w->self), about, header);
	if (tun_write(w->tun, &reply) == TUN_WRITTEN)
		count_add(w->block, icmp_sent, 1);
	else
		count_add(w->block, tx_tun_errors, 1);
}

/* See rtnetlink.h. */
#include "rtnetlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_BYTES 32768u

void *rtnl_begin(struct rtnl_request *r, uint16_t type, uint16_t flags, size_t fixed_bytes)
{
	memset(r, 0, sizeof *r);
	r->header.nlmsg_type = type;
	r->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
	r->header.nlmsg_len = (uint32_t)NLMSG_SPACE(fixed_bytes);
	return NLMSG_DATA(&r->header);
}

void rtnl_add(struct rtnl_request *r, uint16_t type, const void *value, size_t bytes)
{
	size_t at = NLMSG_ALIGN(r->header.nlmsg_len);
	if (at + RTA_SPACE(bytes) > sizeof r->bytes)
		abort();
	struct rtattr *attribute = (struct rtattr *)(void *)(r->bytes + at);
	attribute->rta_type = type;
	attribute->rta_len = (uint16_t)RTA_LENGTH(bytes);
	if (bytes > 0)
		memcpy(RTA_DATA(attribute), value, bytes);
	r->header.nlmsg_len = (uint32_t)(at + RTA_SPACE(bytes));
}

void rtnl_add_text(struct rtnl_request *r, uint16_t type, const char *text)
{
	rtnl_add(r, type, text, strlen(text) + 1);
}

void rtnl_add_u32(struct rtnl_request *r, uint16_t type, uint32_t value)
{
	rtnl_add(r, type, &value, sizeof value);
}

void rtnl_add_flag(struct rtnl_request *r, uint16_t type)
{
	rtnl_add(r, type, NULL, 0);
}

struct rtattr *rtnl_nest(struct rtnl_request *r, uint16_t type)
{
	size_t at = NLMSG_ALIGN(r->header.nlmsg_len);
	rtnl_add_flag(r, (uint16_t)(type | NLA_F_NESTED));
	return (struct rtattr *)(void *)(r->bytes + at);
}

void rtnl_nest_end(struct rtnl_request *r, struct rtattr *nest)
{
	nest->rta_len = (uint16_t)(r->bytes + r->header.nlmsg_len - (uint8_t *)nest);
}

static void keep_refusal(struct rtnl_request *r, const struct nlmsghdr *message)
{
	const struct nlmsgerr *error = NLMSG_DATA(message);
	size_t fixed = sizeof *error;

	if (!(message->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	/* The request comes back behind the error, unless its kernel was told to cap it. */
	if (!(message->nlmsg_flags & NLM_F_CAPPED))
		fixed += NLMSG_ALIGN(error->msg.nlmsg_len) - sizeof error->msg;
	if (message->nlmsg_len >= NLMSG_SPACE(fixed))
		rtnl_text(rtnl_find(message, fixed, NLMSGERR_ATTR_MSG), r->refusal, sizeof r->refusal);
}

enum heard { HEARD_MORE, HEARD_END };

/* Looks at one message of an answer. */
static enum heard hear(struct rtnl_request *r, const struct nlmsghdr *message, int *err, rtnl_answer answer,
		       void *context)
{
	if (message->nlmsg_type == NLMSG_DONE)
		return HEARD_END;
	if (message->nlmsg_type == NLMSG_ERROR) {
		if (message->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr))) {
			*err = EPROTO;
			return HEARD_END;
		}
		*err = -((const struct nlmsgerr *)NLMSG_DATA(message))->error;
		if (*err)
			keep_refusal(r, message);
		return HEARD_END;
	}
	if (answer)
		answer(message, context);
	return HEARD_MORE;
}

static int hear_all(int fd, struct rtnl_request *r, rtnl_answer answer, void *context)
{
	_Alignas(struct nlmsghdr) uint8_t bytes[ANSWER_BYTES];
	int err = 0;

	for (;;) {
		ssize_t length = recv(fd, bytes, sizeof bytes, MSG_TRUNC);
		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0)
			return errno;
		if ((size_t)length > sizeof bytes)
			return EMSGSIZE;
		unsigned left = (unsigned)length;
		for (const struct nlmsghdr *m = (const void *)bytes; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
			if (hear(r, m, &err, answer, context) == HEARD_END)
				return err;
		}
	}
}

int rtnl_send(struct rtnl_request *r, rtnl_answer answer, void *context)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int on = 1, fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), err;

	if (fd < 0)
		return errno;
	/* An older kernel says less, and that is all. */
	setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
	if (sendto(fd, r->bytes, r->header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
		err = errno;
	else
		err = hear_all(fd, r, answer, context);
	close(fd);
	return err;
}

static const struct rtattr *find(const void *first, size_t bytes, uint16_t type)
{
	unsigned left = (unsigned)bytes;
	for (const struct rtattr *a = first; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if ((a->rta_type & NLA_TYPE_MASK) == type)
			return a;
	}
	return NULL;
}

const struct rtattr *rtnl_find(const struct nlmsghdr *message, size_t fixed_bytes, uint16_t type)
{
	if (message->nlmsg_len < NLMSG_SPACE(fixed_bytes))
		return NULL;
	return find((const uint8_t *)message + NLMSG_SPACE(fixed_bytes), message->nlmsg_len - NLMSG_SPACE(fixed_bytes),
		    type);
}

const struct rtattr *rtnl_find_in(const struct rtattr *nest, uint16_t type)
{
	return nest ? find(RTA_DATA(nest), RTA_PAYLOAD(nest), type) : NULL;
}

uint32_t rtnl_u32(const struct rtattr *attribute)
{
	uint32_t value = 0;
	if (attribute && RTA_PAYLOAD(attribute) >= sizeof value)
		memcpy(&value, RTA_DATA(attribute), sizeof value);
	return value;
}

void rtnl_text(const struct rtattr *attribute, char *text, size_t size)
{
	size_t length = attribute ? strnlen(RTA_DATA(attribute), RTA_PAYLOAD(attribute)) : 0;
	if (length >= size)
		length = size - 1;
	if (length > 0)
		memcpy(text, RTA_DATA(attribute), length);
	text[length] = '\0';
}

napi_value throw_refusal(napi_env env, int err, const char *call, const char *name, const char *refusal)
{
	char subject[IFNAMSIZ + RTNL_REFUSAL_BYTES + 8];
	snprintf(subject, sizeof subject, "%s%s%s", name, refusal[0] ? ": " : "", refusal);
	return throw_errno(env, err, call, subject);
}

napi_value throw_at_index(napi_env env, int err, const char *call, uint32_t index, const char *refusal)
{
	char name[IFNAMSIZ];
	if (!if_indextoname(index, name))
		snprintf(name, sizeof name, "link %u", index);
	return throw_refusal(env, err, call, name, refusal);
}

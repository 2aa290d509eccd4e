/*
 * Requests to rtnetlink(7): a message with attributes, and the kernel's answers to it. Each request has a socket of its
 * own, so that no answer meets another request.
 */
#ifndef TARTAN_RTNETLINK_H
#define TARTAN_RTNETLINK_H

#include "addon.h"

#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RTNL_REQUEST_BYTES 1024u
#define RTNL_REFUSAL_BYTES 160u

struct rtnl_request {
	union {
		struct nlmsghdr header;
		uint8_t bytes[RTNL_REQUEST_BYTES];
	};
	/* The kernel's own words for an error (extended acknowledgement), or empty. */
	char refusal[RTNL_REFUSAL_BYTES];
};

/* Begins a message with its fixed part, struct ifinfomsg or tcmsg. Returns that part, zeroed. */
void *rtnl_begin(struct rtnl_request *r, uint16_t type, uint16_t flags, size_t fixed_bytes);

/* Each adds an attribute. The caller adds fewer bytes than RTNL_REQUEST_BYTES in all; more are a bug and abort. */
void rtnl_add(struct rtnl_request *r, uint16_t type, const void *value, size_t bytes);
void rtnl_add_text(struct rtnl_request *r, uint16_t type, const char *text);
void rtnl_add_u32(struct rtnl_request *r, uint16_t type, uint32_t value);
void rtnl_add_flag(struct rtnl_request *r, uint16_t type);
/* Opens an attribute that holds others. rtnl_nest_end() closes it. */
struct rtattr *rtnl_nest(struct rtnl_request *r, uint16_t type);
void rtnl_nest_end(struct rtnl_request *r, struct rtattr *nest);

/* Sees one answer that is no acknowledgement. */
typedef void (*rtnl_answer)(const struct nlmsghdr *message, void *context);

/* Sends the request and hears its answers, all of them of a dump. Returns 0 or an errno, the kernel's with its words. */
int rtnl_send(struct rtnl_request *r, rtnl_answer answer, void *context);

/* The attribute of the type behind the fixed part of an answer, or inside another attribute; NULL when it is absent. */
const struct rtattr *rtnl_find(const struct nlmsghdr *message, size_t fixed_bytes, uint16_t type);
const struct rtattr *rtnl_find_in(const struct rtattr *nest, uint16_t type);
/* The value of an attribute, or 0 when it is absent or too short. */
uint32_t rtnl_u32(const struct rtattr *attribute);
/* Copies a text, cut to the size; an absent one is empty. */
void rtnl_text(const struct rtattr *attribute, char *text, size_t size);

/* Throw an exception with the kernel's words, and return NULL; the link is named, or found by its index. */
napi_value throw_refusal(napi_env env, int err, const char *call, const char *name, const char *refusal);
napi_value throw_at_index(napi_env env, int err, const char *call, uint32_t index, const char *refusal);

#endif

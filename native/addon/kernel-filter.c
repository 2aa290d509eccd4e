/*
 * The kernel engine's filters: a BPF program with direct action in the clsact queue of a link. A filter is ours by its
 * name.
 *
 * Sources: rtnetlink(7), tc-bpf(8), Documentation/netlink/specs/tc.yaml, linux/pkt_cls.h.
 */
#include "addon.h"
#include "rtnetlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <string.h>

/* Ours come first: a filter of others in front of `inbound` could let strangers in. */
#define FILTER_PRIORITY 1u
#define FILTER_HANDLE 1u
static const char filter_name[] = "tartan";

struct filter {
	bool found;
	uint32_t program;
	char name[32];
};

static void *begin_filter(struct rtnl_request *r, uint16_t type, uint16_t flags, uint32_t index, uint32_t parent)
{
	struct tcmsg *head = rtnl_begin(r, type, flags, sizeof *head);
	head->tcm_family = AF_UNSPEC;
	head->tcm_ifindex = (int)index;
	head->tcm_parent = parent;
	return head;
}

static void *begin_own_filter(struct rtnl_request *r, uint16_t type, uint16_t flags, uint32_t index, uint32_t parent)
{
	struct tcmsg *head = begin_filter(r, type, flags, index, parent);
	head->tcm_handle = FILTER_HANDLE;
	head->tcm_info = TC_H_MAKE(FILTER_PRIORITY << 16, htons(ETH_P_ALL));
	rtnl_add_text(r, TCA_KIND, "bpf");
	return head;
}

static void read_filter(const struct nlmsghdr *message, void *context)
{
	struct filter *filter = context;

	if (message->nlmsg_type != RTM_NEWTFILTER)
		return;
	const struct rtattr *options = rtnl_find(message, sizeof(struct tcmsg), TCA_OPTIONS);
	filter->found = true;
	filter->program = rtnl_u32(rtnl_find_in(options, TCA_BPF_ID));
	rtnl_text(rtnl_find_in(options, TCA_BPF_NAME), filter->name, sizeof filter->name);
}

/* What stands in the place of our filter, whoever put it there. EINVAL: there is no clsact queue. */
static int get_filter(uint32_t index, uint32_t parent, struct filter *filter)
{
	struct rtnl_request r;

	memset(filter, 0, sizeof *filter);
	begin_own_filter(&r, RTM_GETTFILTER, 0, index, parent);
	int err = rtnl_send(&r, read_filter, filter);
	return err == ENOENT || err == EINVAL || err == ENODEV ? 0 : err;
}

static bool is_ours(const struct filter *filter)
{
	return filter->found && strcmp(filter->name, filter_name) == 0;
}

static bool read_place(napi_env env, const napi_value *argv, uint32_t *index, uint32_t *parent)
{
	char direction[8];

	if (!read_u32(env, argv[0], "the link index", index) ||
	    !read_text(env, argv[1], "the direction", direction, sizeof direction))
		return false;
	bool ingress = strcmp(direction, "ingress") == 0;
	if (!ingress && strcmp(direction, "egress") != 0) {
		throw_type(env, "the direction", "'ingress' or 'egress'");
		return false;
	}
	*parent = TC_H_MAKE(TC_H_CLSACT, ingress ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS);
	return true;
}

static int make_clsact(struct rtnl_request *r, uint32_t index)
{
	struct tcmsg *head = begin_filter(r, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, index, TC_H_CLSACT);
	head->tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0);
	rtnl_add_text(r, TCA_KIND, "clsact");
	int err = rtnl_send(r, NULL, NULL);
	return err == EEXIST ? 0 : err;
}

static int put_filter(struct rtnl_request *r, uint32_t index, uint32_t parent, int program)
{
	begin_own_filter(r, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, index, parent);
	struct rtattr *options = rtnl_nest(r, TCA_OPTIONS);
	rtnl_add_u32(r, TCA_BPF_FD, (uint32_t)program);
	rtnl_add_text(r, TCA_BPF_NAME, filter_name);
	rtnl_add_u32(r, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
	rtnl_nest_end(r, options);
	return rtnl_send(r, NULL, NULL);
}

static napi_value attach_filter(napi_env env, napi_callback_info info)
{
	struct filter filter;
	struct rtnl_request r;
	uint32_t index, parent;
	napi_value argv[3];
	int program;

	if (!read_arguments(env, info, 3, argv) || !read_place(env, argv, &index, &parent) ||
	    !read_descriptor(env, argv[2], &program))
		return NULL;
	int err = get_filter(index, parent, &filter);
	if (err)
		return throw_at_index(env, err, "RTM_GETTFILTER", index, "");
	if (filter.found && !is_ours(&filter))
		return throw_at_index(env, EEXIST, "RTM_NEWTFILTER", index, "a filter of others has preference 1");
	err = make_clsact(&r, index);
	if (err)
		return throw_at_index(env, err, "RTM_NEWQDISC", index, r.refusal);
	err = put_filter(&r, index, parent, program);
	return err ? throw_at_index(env, err, "RTM_NEWTFILTER", index, r.refusal) : NULL;
}

static napi_value has_filter(napi_env env, napi_callback_info info)
{
	struct filter filter;
	uint32_t index, parent;
	napi_value argv[2];

	if (!read_arguments(env, info, 2, argv) || !read_place(env, argv, &index, &parent))
		return NULL;
	int err = get_filter(index, parent, &filter);
	if (err)
		return throw_at_index(env, err, "RTM_GETTFILTER", index, "");
	return is_ours(&filter) ? new_number(env, filter.program) : NULL;
}

static int take_filter(struct rtnl_request *r, uint32_t index, uint32_t parent)
{
	struct filter filter;
	int err = get_filter(index, parent, &filter);

	if (err || !is_ours(&filter))
		return err;
	begin_own_filter(r, RTM_DELTFILTER, 0, index, parent);
	return rtnl_send(r, NULL, NULL);
}

/* The queue stays: the kernel drops what a link sends while a queue is taken from it. */
static napi_value detach_filters(napi_env env, napi_callback_info info)
{
	struct rtnl_request r;
	uint32_t index;
	napi_value argv[1];

	if (!read_arguments(env, info, 1, argv) || !read_u32(env, argv[0], "the link index", &index))
		return NULL;
	r.refusal[0] = '\0';
	int err = take_filter(&r, index, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS));
	if (!err)
		err = take_filter(&r, index, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS));
	return err ? throw_at_index(env, err, "RTM_DELTFILTER", index, r.refusal) : NULL;
}

static napi_value make_filter_queue(napi_env env, napi_callback_info info)
{
	struct rtnl_request r;
	uint32_t index;
	napi_value argv[1];

	if (!read_arguments(env, info, 1, argv) || !read_u32(env, argv[0], "the link index", &index))
		return NULL;
	int err = make_clsact(&r, index);
	return err ? throw_at_index(env, err, "RTM_NEWQDISC", index, r.refusal) : NULL;
}

void kernel_filter_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "attachFilter", attach_filter);
	add_function(env, exports, "hasFilter", has_filter);
	add_function(env, exports, "detachFilters", detach_filters);
	add_function(env, exports, "makeFilterQueue", make_filter_queue);
}

/*
 * The kernel engine's devices: the VXLAN-GPE link, and whether a tun outlives its descriptors.
 *
 * Sources: rtnetlink(7), Documentation/netlink/specs/rt-link.yaml, linux/if_link.h, Documentation/networking/tuntap.rst.
 */
#include "addon.h"
#include "rtnetlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define ALIAS_BYTES 256u /* IFALIASZ of the kernel */
#define KIND_BYTES 32u

struct link {
	bool found;
	int index;
	bool up, carrier, gpe, external;
	uint16_t port;
	char name[IFNAMSIZ], kind[KIND_BYTES], alias[ALIAS_BYTES];
};

static void read_link(const struct nlmsghdr *message, void *context)
{
	const size_t fixed = sizeof(struct ifinfomsg);
	const struct ifinfomsg *head = NLMSG_DATA(message);
	struct link *link = context;

	if (message->nlmsg_type != RTM_NEWLINK || message->nlmsg_len < NLMSG_LENGTH(fixed))
		return;
	const struct rtattr *info = rtnl_find(message, fixed, IFLA_LINKINFO);
	const struct rtattr *data = rtnl_find_in(info, IFLA_INFO_DATA);
	const struct rtattr *port = rtnl_find_in(data, IFLA_VXLAN_PORT);
	const struct rtattr *external = rtnl_find_in(data, IFLA_VXLAN_COLLECT_METADATA);
	const struct rtattr *carrier = rtnl_find(message, fixed, IFLA_CARRIER);
	uint16_t network_port = 0;

	memset(link, 0, sizeof *link);
	link->found = true;
	link->index = head->ifi_index;
	link->up = head->ifi_flags & IFF_UP;
	link->carrier = carrier && RTA_PAYLOAD(carrier) > 0 && *(const uint8_t *)RTA_DATA(carrier);
	link->gpe = rtnl_find_in(data, IFLA_VXLAN_GPE);
	link->external = external && RTA_PAYLOAD(external) > 0 && *(const uint8_t *)RTA_DATA(external);
	rtnl_text(rtnl_find(message, fixed, IFLA_IFNAME), link->name, sizeof link->name);
	rtnl_text(rtnl_find(message, fixed, IFLA_IFALIAS), link->alias, sizeof link->alias);
	rtnl_text(rtnl_find_in(info, IFLA_INFO_KIND), link->kind, sizeof link->kind);
	if (port && RTA_PAYLOAD(port) >= sizeof network_port)
		memcpy(&network_port, RTA_DATA(port), sizeof network_port);
	link->port = strcmp(link->kind, "vxlan") == 0 ? ntohs(network_port) : 0;
}

static int get_link(const char *name, struct link *link)
{
	struct rtnl_request r;

	memset(link, 0, sizeof *link);
	rtnl_begin(&r, RTM_GETLINK, 0, sizeof(struct ifinfomsg));
	rtnl_add_text(&r, IFLA_IFNAME, name);
	int err = rtnl_send(&r, read_link, link);
	return err == ENODEV ? 0 : err;
}

static void add_flag_of(napi_env env, napi_value object, const char *name, bool is)
{
	napi_value value;
	if (ok(env, napi_get_boolean(env, is, &value)))
		ok(env, napi_set_named_property(env, object, name, value));
}

static napi_value kernel_link(napi_env env, napi_callback_info info)
{
	struct link link;
	char name[IFNAMSIZ];
	napi_value argv[1];

	if (!read_arguments(env, info, 1, argv) || !read_text(env, argv[0], "the link name", name, sizeof name))
		return NULL;
	int err = get_link(name, &link);
	if (err)
		return throw_errno(env, err, "RTM_GETLINK", name);
	if (!link.found)
		return NULL;
	napi_value object = new_object(env);
	if (!object)
		return NULL;
	add_number(env, object, "index", link.index);
	add_string(env, object, "kind", link.kind);
	add_string(env, object, "alias", link.alias);
	add_number(env, object, "port", link.port);
	add_flag_of(env, object, "up", link.up);
	add_flag_of(env, object, "carrier", link.carrier);
	add_flag_of(env, object, "gpe", link.gpe);
	add_flag_of(env, object, "external", link.external);
	return finished(env, object);
}

struct port_search {
	uint16_t port;
	char except[IFNAMSIZ], name[IFNAMSIZ];
};

static void look_for_port(const struct nlmsghdr *message, void *context)
{
	struct port_search *search = context;
	struct link link = { .found = false };

	read_link(message, &link);
	if (link.found && link.port == search->port && strcmp(link.name, search->except) != 0)
		memcpy(search->name, link.name, sizeof search->name);
}

/* The name of another vxlan link that has the port, or undefined. */
static napi_value vxlan_on_port(napi_env env, napi_callback_info info)
{
	struct port_search search = { .port = 0 };
	struct rtnl_request r;
	napi_value argv[2], name;

	if (!read_arguments(env, info, 2, argv) || !read_u16(env, argv[0], "the port", &search.port) ||
	    !read_text(env, argv[1], "the link name", search.except, sizeof search.except))
		return NULL;
	rtnl_begin(&r, RTM_GETLINK, NLM_F_DUMP, sizeof(struct ifinfomsg));
	int err = rtnl_send(&r, look_for_port, &search);
	if (err)
		return throw_errno(env, err, "RTM_GETLINK", NULL);
	if (!search.name[0])
		return NULL;
	return ok(env, napi_create_string_utf8(env, search.name, NAPI_AUTO_LENGTH, &name)) ? name : NULL;
}

struct new_link {
	char name[IFNAMSIZ], made[IFNAMSIZ], alias[ALIAS_BYTES];
	uint16_t port;
	uint32_t mtu;
};

static bool read_new_link(napi_env env, napi_value object, struct new_link *link)
{
	napi_value name, alias, port, mtu;

	return ok(env, napi_get_named_property(env, object, "name", &name)) &&
	       ok(env, napi_get_named_property(env, object, "alias", &alias)) &&
	       ok(env, napi_get_named_property(env, object, "port", &port)) &&
	       ok(env, napi_get_named_property(env, object, "mtu", &mtu)) &&
	       read_text(env, name, "the link name", link->name, sizeof link->name) &&
	       read_text(env, alias, "the alias", link->alias, sizeof link->alias) &&
	       read_u16(env, port, "the port", &link->port) && read_u32(env, mtu, "the MTU", &link->mtu);
}

static int make_link(struct rtnl_request *r, const struct new_link *link)
{
	uint16_t port = htons(link->port);
	uint8_t on = 1, off = 0;

	rtnl_begin(r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
	rtnl_add_text(r, IFLA_IFNAME, link->made);
	rtnl_add_u32(r, IFLA_MTU, link->mtu);
	struct rtattr *info = rtnl_nest(r, IFLA_LINKINFO);
	rtnl_add_text(r, IFLA_INFO_KIND, "vxlan");
	struct rtattr *data = rtnl_nest(r, IFLA_INFO_DATA);
	rtnl_add(r, IFLA_VXLAN_PORT, &port, sizeof port);
	rtnl_add(r, IFLA_VXLAN_COLLECT_METADATA, &on, sizeof on);
	rtnl_add(r, IFLA_VXLAN_LEARNING, &off, sizeof off);
	rtnl_add_flag(r, IFLA_VXLAN_GPE);
	rtnl_nest_end(r, data);
	rtnl_nest_end(r, info);
	return rtnl_send(r, NULL, NULL);
}

static int remove_link(struct rtnl_request *r, int index)
{
	struct ifinfomsg *head = rtnl_begin(r, RTM_DELLINK, 0, sizeof *head);
	head->ifi_index = index;
	return rtnl_send(r, NULL, NULL);
}

/* Gives the link its name and its alias in one request: a link of our name without our alias is none of ours. */
static int name_link(struct rtnl_request *r, int index, const struct new_link *link)
{
	struct ifinfomsg *head = rtnl_begin(r, RTM_SETLINK, 0, sizeof *head);
	head->ifi_index = index;
	rtnl_add_text(r, IFLA_IFNAME, link->name);
	rtnl_add(r, IFLA_IFALIAS, link->alias, strlen(link->alias));
	return rtnl_send(r, NULL, NULL);
}

/* A link that was made and not named was left by a process that died in between. */
static int remove_unnamed(struct rtnl_request *r, const struct new_link *link)
{
	struct link left;
	int err = get_link(link->made, &left);
	return err || !left.found || left.alias[0] ? err : remove_link(r, left.index);
}

static napi_value create_kernel_link(napi_env env, napi_callback_info info)
{
	struct new_link link;
	struct link made;
	struct rtnl_request r, undo;
	napi_value argv[1];

	if (!read_arguments(env, info, 1, argv) || !read_new_link(env, argv[0], &link))
		return NULL;
	if (strlen(link.name) > IFNAMSIZ - 3)
		return throw_type(env, "the link name", "at most 13 characters long");
	snprintf(link.made, sizeof link.made, "%.13s-n", link.name);
	r.refusal[0] = '\0';
	int err = remove_unnamed(&r, &link);
	if (!err)
		err = make_link(&r, &link);
	if (err)
		return throw_refusal(env, err, "RTM_NEWLINK", link.name, r.refusal);
	err = get_link(link.made, &made);
	if (!err)
		err = name_link(&r, made.index, &link);
	if (err) {
		remove_link(&undo, made.index);
		return throw_refusal(env, err, "RTM_SETLINK", link.name, r.refusal);
	}
	return NULL;
}

static napi_value set_link_up(napi_env env, napi_callback_info info)
{
	struct rtnl_request r;
	uint32_t index;
	napi_value argv[2];
	bool up;

	if (!read_arguments(env, info, 2, argv) || !read_u32(env, argv[0], "the link index", &index) ||
	    !read_bool(env, argv[1], "up", &up))
		return NULL;
	struct ifinfomsg *head = rtnl_begin(&r, RTM_SETLINK, 0, sizeof *head);
	head->ifi_index = (int)index;
	head->ifi_flags = up ? IFF_UP : 0;
	head->ifi_change = IFF_UP;
	int err = rtnl_send(&r, NULL, NULL);
	return err ? throw_at_index(env, err, "RTM_SETLINK", index, r.refusal) : NULL;
}

static napi_value set_link_alias(napi_env env, napi_callback_info info)
{
	struct rtnl_request r;
	char alias[ALIAS_BYTES];
	uint32_t index;
	napi_value argv[2];

	if (!read_arguments(env, info, 2, argv) || !read_u32(env, argv[0], "the link index", &index) ||
	    !read_text(env, argv[1], "the alias", alias, sizeof alias))
		return NULL;
	struct ifinfomsg *head = rtnl_begin(&r, RTM_SETLINK, 0, sizeof *head);
	head->ifi_index = (int)index;
	rtnl_add(&r, IFLA_IFALIAS, alias, strlen(alias));
	int err = rtnl_send(&r, NULL, NULL);
	return err ? throw_at_index(env, err, "RTM_SETLINK", index, r.refusal) : NULL;
}

static napi_value delete_link(napi_env env, napi_callback_info info)
{
	struct rtnl_request r;
	uint32_t index;
	napi_value argv[1];

	if (!read_arguments(env, info, 1, argv) || !read_u32(env, argv[0], "the link index", &index))
		return NULL;
	int err = remove_link(&r, (int)index);
	return err ? throw_at_index(env, err, "RTM_DELLINK", index, r.refusal) : NULL;
}

static napi_value tun_set_persist(napi_env env, napi_callback_info info)
{
	napi_value argv[2];
	int fd;
	bool on;

	if (!read_arguments(env, info, 2, argv) || !read_descriptor(env, argv[0], &fd) ||
	    !read_bool(env, argv[1], "on", &on))
		return NULL;
	return ioctl(fd, TUNSETPERSIST, on ? 1UL : 0UL) < 0 ? throw_errno(env, errno, "TUNSETPERSIST", NULL) : NULL;
}

void kernel_link_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "createKernelLink", create_kernel_link);
	add_function(env, exports, "kernelLink", kernel_link);
	add_function(env, exports, "vxlanOnPort", vxlan_on_port);
	add_function(env, exports, "setLinkUp", set_link_up);
	add_function(env, exports, "setLinkAlias", set_link_alias);
	add_function(env, exports, "deleteLink", delete_link);
	add_function(env, exports, "tunSetPersist", tun_set_persist);
}

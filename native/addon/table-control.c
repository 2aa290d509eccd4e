/* The identity and the control words (MTU, fence, drain, deadline), which tartand writes at the head of `routes`. */
#include "addon.h"
#include "table.h"

static napi_value identity_method(napi_env env, napi_callback_info info)
{
	struct table *t = table_of(env, info, 0, NULL);
	napi_value object;
	if (!t || !table_live_slot(t))
		return NULL;
	object = new_object(env);
	if (!object)
		return NULL;
	add_number(env, object, "network", t->routes->network);
	add_number(env, object, "networkLength", t->routes->network_length);
	add_number(env, object, "subnet", t->routes->subnet);
	add_number(env, object, "subnetLength", t->routes->subnet_length);
	add_number(env, object, "publicIp", t->routes->public_ip);
	add_number(env, object, "port", t->routes->port);
	add_number(env, object, "flags", t->routes->flags);
	add_number(env, object, "mtu", atomic_load(&t->routes->mtu));
	return finished(env, object);
}

static bool read_member(napi_env env, napi_value object, const char *name, uint32_t *word)
{
	napi_value value;
	return ok(env, napi_get_named_property(env, object, name, &value)) && read_u32(env, value, name, word);
}

static napi_value set_identity_method(napi_env env, napi_callback_info info)
{
	uint32_t network, network_length, subnet, subnet_length, public_ip, port, flags, mtu;
	napi_value argv[1];
	struct table *t = table_of(env, info, 1, argv);

	if (!t || !read_member(env, argv[0], "network", &network) ||
	    !read_member(env, argv[0], "networkLength", &network_length) ||
	    !read_member(env, argv[0], "subnet", &subnet) ||
	    !read_member(env, argv[0], "subnetLength", &subnet_length) ||
	    !read_member(env, argv[0], "publicIp", &public_ip) || !read_member(env, argv[0], "port", &port) ||
	    !read_member(env, argv[0], "flags", &flags) || !read_member(env, argv[0], "mtu", &mtu))
		return NULL;
	t->routes->network = network;
	t->routes->network_length = network_length;
	t->routes->subnet = subnet;
	t->routes->subnet_length = subnet_length;
	t->routes->public_ip = public_ip;
	t->routes->port = port;
	t->routes->flags = flags;
	t->routes->wide_network = (struct wide_address){ .word = { network }, .family = FAMILY_IPV4 };
	t->routes->wide_subnet = (struct wide_address){ .word = { subnet }, .family = FAMILY_IPV4 };
	t->routes->wide_public = (struct wide_address){ .word = { public_ip }, .family = FAMILY_IPV4 };
	atomic_store(&t->routes->mtu, mtu);
	return NULL;
}

static napi_value control_method(napi_env env, napi_callback_info info)
{
	struct table *t = table_of(env, info, 0, NULL);
	napi_value object, fence;
	if (!t)
		return NULL;
	object = new_object(env);
	if (!object || !ok(env, napi_get_boolean(env, atomic_load(&t->routes->fence) != 0, &fence)) ||
	    !ok(env, napi_set_named_property(env, object, "fence", fence)))
		return NULL;
	add_number(env, object, "generation", atomic_load(&t->routes->generation));
	add_number(env, object, "forwardUntil", (double)(atomic_load(&t->routes->forward_until) / 1000000));
	return finished(env, object);
}

static napi_value set_mtu_method(napi_env env, napi_callback_info info)
{
	uint32_t mtu;
	napi_value argv[1];
	struct table *t = table_of(env, info, 1, argv);
	if (t && read_u32(env, argv[0], "mtu", &mtu))
		atomic_store(&t->routes->mtu, mtu);
	return NULL;
}

static napi_value set_underlay_mtu_method(napi_env env, napi_callback_info info)
{
	uint32_t mtu;
	napi_value argv[1];
	struct table *t = table_of(env, info, 1, argv);
	/* Another layout has something else there, or nothing. */
	if (t && read_u32(env, argv[0], "mtu", &mtu) && t->counters)
		atomic_store(&t->routes->underlay_mtu, mtu);
	return NULL;
}

static napi_value set_forward_until_method(napi_env env, napi_callback_info info)
{
	double ms;
	napi_value argv[1];
	struct table *t = table_of(env, info, 1, argv);
	if (!t || !read_number(env, argv[0], "bootMs", &ms))
		return NULL;
	/* Any deadline before the boot is past, like one at the boot. The upper limit keeps the product in 64 bits. */
	if (ms < 0)
		ms = 0;
	if (ms > 9e12)
		ms = 9e12;
	atomic_store(&t->routes->forward_until, (uint64_t)ms * 1000000);
	return NULL;
}

static napi_value set_flag(napi_env env, napi_callback_info info, bool drain)
{
	bool on;
	napi_value argv[1];
	struct table *t = table_of(env, info, 1, argv);
	if (t && read_bool(env, argv[0], "on", &on))
		atomic_store(drain ? &t->routes->drain : &t->routes->fence, on ? 1u : 0u);
	return NULL;
}

/* The number of the question is returned: a thread has answered it when its answer is not before it. */
static napi_value ask_method(napi_env env, napi_callback_info info)
{
	struct table *t = table_of(env, info, 0, NULL);
	return t ? new_number(env, atomic_fetch_add(&t->routes->asked, 1) + 1u) : NULL;
}

static napi_value set_fence_method(napi_env env, napi_callback_info info)
{
	return set_flag(env, info, false);
}

static napi_value set_drain_method(napi_env env, napi_callback_info info)
{
	return set_flag(env, info, true);
}

void table_add_control(napi_env env, napi_value object)
{
	add_function(env, object, "identity", identity_method);
	add_function(env, object, "setIdentity", set_identity_method);
	add_function(env, object, "control", control_method);
	add_function(env, object, "setMtu", set_mtu_method);
	add_function(env, object, "setUnderlayMtu", set_underlay_mtu_method);
	add_function(env, object, "setForwardUntil", set_forward_until_method);
	add_function(env, object, "setFence", set_fence_method);
	add_function(env, object, "setDrain", set_drain_method);
	add_function(env, object, "ask", ask_method);
}

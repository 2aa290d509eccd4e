/*
 * The Node-API addon: the init function of each file adds its functions to `exports`. The addon is built with gcc and
 * the headers of the package node-api-headers, without node-gyp.
 */
#include "addon.h"
#include "../shared/layout.h"

/* What TypeScript must know of layout.h. */
static bool add_limits(napi_env env, napi_value exports)
{
	napi_value limits = new_object(env);

	if (!limits)
		return false;
	add_number(env, limits, "lanesMax", LANES_MAX);
	add_number(env, limits, "queuesMax", QUEUES_MAX);
	add_number(env, limits, "threadsMax", THREADS_MAX);
	add_number(env, limits, "peersMax", PEERS_MAX);
	add_number(env, limits, "routesMax", FAMILY_ROUTES_MAX);
	add_number(env, limits, "tunQueueLength", TUN_QUEUE_PACKETS);
	add_number(env, limits, "tunQueueLengthWithoutTso", TUN_QUEUE_PACKETS_WITHOUT_TSO);
	add_number(env, limits, "flagNoSourceCheck", FLAG_NO_SOURCE_CHECK);
	add_number(env, limits, "flagNoDestinationCheck", FLAG_NO_DESTINATION_CHECK);
	add_number(env, limits, "featureProbe", FEATURE_PROBE);
	add_number(env, limits, "peerEngineKernel", PEER_ENGINE_KERNEL);
	return ok(env, napi_set_named_property(env, exports, "limits", limits));
}

static napi_value init(napi_env env, napi_value exports)
{
	add_string(env, exports, "build", TARTAN_BUILD);
	add_number(env, exports, "layoutVersion", LAYOUT_VERSION);
	if (!add_limits(env, exports))
		return NULL;
	tun_init(env, exports);
	udp_init(env, exports);
	steering_init(env, exports);
	kernel_path_init(env, exports);
	table_init(env, exports);
	adopt_init(env, exports);
	netlink_init(env, exports);
	watch_init(env, exports);
	icmp_init(env, exports);
	system_init(env, exports);
	kernel_link_init(env, exports);
	kernel_filter_init(env, exports);
	return exports;
}

NAPI_MODULE(NODE_GYP_MODULE_NAME, init)

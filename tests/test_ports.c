// SPDX-License-Identifier: Apache-2.0
// Lines of ports: what they say, what a bad one is told, what the front end is told then.
#include "tests/net_rig.h"

#include <stdio.h>
#include <string.h>

#define V1 VIRTIO_BIT(VIRTIO_F_VERSION_1)

static struct net_end a, b;

static void lines_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"port p socket=/s", "port p: switch=NAME is needed: a text of 1 to 63 bytes"},
        {"port p switch=x socket=/s", "port p: switch=x: there is only s"},
        {"port p switch=s socket=/s queues=128", "port p: queues=128: a number from 1 to 127"},
        {"port p switch=s socket=/s mtu=67", "port p: mtu=67: a number from 68 to 65535"},
        {"port p switch=s socket=/s vlan=4095", "port p: vlan=4095: a number from 1 to 4094"},
        {"port p switch=s socket=/s mac=ff:ff:ff:ff:ff:ff",
         "port p: mac=ff:ff:ff:ff:ff:ff: a MAC address such as 52:54:00:12:34:56, not of a group"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct device *d;
        struct error e;
        assert_true(net_device(&net_rig, &d, cases[i].line, &e) < 0);
        assert_string_equal(e.text, cases[i].says);
    }
}

static void config_space_is_the_lines(void **state)
{
    (void)state;
    struct virtio_net_config c;
    net_end_open(&net_rig, &a,
                 &(struct net_end_config){.features = V1, .line = "queues=4 mtu=9000"});
    net_end_open(&net_rig, &b, &(struct net_end_config){.features = V1, .name = "b"});
    memcpy(&c, a.device->config, sizeof(c));
    assert_int_equal(a.device->config_bytes, 24);
    assert_memory_equal(c.mac, ((uint8_t[]){2, 0, 0, 0, 0, 0xaa}), 6);
    assert_int_equal(c.status, VIRTIO_NET_S_LINK_UP);
    assert_int_equal(c.max_virtqueue_pairs, 4);
    assert_int_equal(c.mtu, 9000);
    assert_int_equal(a.device->n_queues, 9);
    assert_int_equal(b.device->n_queues, 3);
    uint64_t several =
        VIRTIO_BIT(VIRTIO_NET_F_MQ) | VIRTIO_BIT(VIRTIO_NET_F_RSS) | VIRTIO_BIT(VIRTIO_NET_F_MTU);
    assert_int_equal(a.device->features & several, several);
    assert_int_equal(b.device->features & several, 0);
    assert_int_equal(a.device->features & ~several, b.device->features);
}

static void mtu_is_checked(void **state)
{
    (void)state;
    struct error e;
    net_end_open(&net_rig, &a, &(struct net_end_config){.features = V1, .line = "mtu=1500"});
    assert_int_equal(port_device.notify(a.device, DEVICE_MTU, 1500, &e), 0);
    assert_true(port_device.notify(a.device, DEVICE_MTU, 1501, &e) < 0);
    assert_string_equal(e.text, "port a: an MTU of 1501: mtu=1500 allows less");
}

// ---- what is told ------------------------------------------------------------------------

static struct describer describer;
static char told[1024];

static void tell_number(struct describer *to, const char *name, uint64_t value)
{
    (void)to;
    size_t n = strlen(told);
    if (value || strcmp(name, "receivers") == 0)
        snprintf(told + n, sizeof(told) - n, "%s=%llu ", name, (unsigned long long)value);
}

static void tell_text(struct describer *to, const char *name, const char *text)
{
    (void)to;
    size_t n = strlen(told);
    snprintf(told + n, sizeof(told) - n, "%s=%s ", name, text);
}

static void tell_open(struct describer *to, const char *name)
{
    tell_text(to, name, "{");
}

static void tell_close(struct describer *to)
{
    (void)to;
    size_t n = strlen(told);
    snprintf(told + n, sizeof(told) - n, "}");
}

static const char *tell(const struct net_end *end, int ring)
{
    describer = (struct describer){tell_number, tell_text, tell_open, tell_open, tell_close};
    told[0] = '\0';
    if (ring < 0)
        port_device.tell(end->device, &describer);
    else
        port_device.tell_queue(end->rings[ring].queue, &describer);
    return told;
}

static void link_and_drops_are_told(void **state)
{
    (void)state;
    static const uint8_t data[12 + 60] = {[12] = 2, [17] = 0xbb, [18] = 2, [23] = 0xaa};
    net_end_open(&net_rig, &a, &(struct net_end_config){.features = V1});
    net_end_open(&net_rig, &b,
                 &(struct net_end_config){.features = V1, .name = "b", .is_late = true});
    assert_string_equal(tell(&a, -1), "switch=s link=up receivers=1 ");
    assert_string_equal(tell(&b, -1), "switch=s link=down receivers=0 ");
    net_end_send(&a, 1, data, sizeof(data), NULL, 0);
    net_rig_run(&net_rig);
    assert_string_equal(tell(&a, 1), "frames=1 frame_bytes=60 drops={ link-down=1 }");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, net_rig_setup, net_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(lines_are_checked),
        TEST(config_space_is_the_lines),
        TEST(mtu_is_checked),
        TEST(link_and_drops_are_told),
    };
    return cmocka_run_group_tests_name("ports", tests, NULL, NULL);
}

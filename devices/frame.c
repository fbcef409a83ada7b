// SPDX-License-Identifier: Apache-2.0
//
// Most frames ask for nothing: of those only the Ethernet header and a tag are read. One that asks
// for a checksum or for segmentation has its headers copied to head[] as far as that needs them,
// wherever the descriptors cut them, and is believed only what these headers bear out:
//
//     csum_start, csum_offset   the field is inside the frame, and in head[]
//     gso_type                  IP version and protocol are those of the headers
//     gso_size                  not 0, and the pieces fit IP's length field
//     hdr_len                   nothing: it is a hint (5.1.6.2), found again here
//
// These are the checks whose lack was CVE-2022-2132 and CVE-2024-11614 elsewhere.
#include "devices/frame.h"

#include "devices/packet.h"

// One segmented frame makes at most so many: TCP's smallest segments, 48 bytes, need 1366.
#define PIECES_MAX 2048

static const char *const drop_names[] = {
    [DROP_NONE] = "none",
    [DROP_RUNT] = "runt",
    [DROP_GIANT] = "giant",
    [DROP_BAD_HEADER] = "bad-header",
    [DROP_BAD_VLAN] = "bad-vlan",
    [DROP_SAME_PORT] = "same-port",
    [DROP_NO_PORT] = "no-port",
    [DROP_RESERVED] = "reserved",
    [DROP_FLOOD] = "flood",
    [DROP_LINK_DOWN] = "link-down",
    [DROP_NO_BUFFER] = "no-buffer",
    [DROP_TOO_SMALL] = "too-small",
    [DROP_MTU] = "mtu",
    [DROP_FILTERED] = "filtered",
    [DROP_CHANNEL_FULL] = "channel-full",
    [DROP_FAULT] = "fault",
    [DROP_UPLINK] = "uplink",
};
static_assert(ARRAY_LEN(drop_names) == DROPS, "a name for each reason");

const char *drop_name(enum drop reason)
{
    return drop_names[reason];
}

// ---- bytes from the sender ---------------------------------------------------------------

// Read @bytes once, from where the frame's iov and skip are, and move these on.
static inline void take(struct frame *f, uint8_t *to, uint32_t bytes)
{
    while (unlikely(f->iov->iov_len - f->skip < bytes)) {
        uint32_t part = (uint32_t)f->iov->iov_len - f->skip;
        memcpy(to, (const uint8_t *)f->iov->iov_base + f->skip, part);
        to += part;
        bytes -= part;
        f->iov++;
        f->n_iov--;
        f->skip = 0;
    }
    memcpy(to, (const uint8_t *)f->iov->iov_base + f->skip, bytes);
    f->skip += bytes;
    // Decide by the copy: without this a compiler may load the sender's bytes again.
    __asm__ volatile("" ::: "memory");
}

// Have the first @bytes of the frame in head[]; false if it does not have them or they are too
// many.
static bool take_head(struct frame *f, uint32_t bytes)
{
    if (bytes > f->bytes || bytes > FRAME_HEAD_MAX)
        return false;
    if (bytes > f->n_head) {
        take(f, f->head + f->n_head, bytes - f->n_head);
        f->n_head = (uint16_t)bytes;
    }
    return true;
}

// ---- what a sender asks for --------------------------------------------------------------

// Where the header behind IPv4's is, and in @proto what; 0: no IPv4 packet, or a fragment.
static uint32_t parse_ipv4(struct frame *f, uint8_t *proto)
{
    const uint8_t *ip = f->head + f->l3;
    if (!take_head(f, f->l3 + IPV4_BYTES) || ip[0] >> 4 != 4)
        return 0;
    uint32_t bytes = (ip[0] & 15u) * 4;
    if (bytes < IPV4_BYTES || !take_head(f, f->l3 + bytes) ||
        load_be16(ip + IPV4_FRAGMENT_AT) & IPV4_FRAGMENT_MASK)
        return 0;
    *proto = ip[IPV4_PROTO_AT];
    return f->l3 + bytes;
}

// The same for IPv6. Of extension headers those are passed that each piece can repeat.
static uint32_t parse_ipv6(struct frame *f, uint8_t *proto)
{
    if (!take_head(f, f->l3 + IPV6_BYTES) || f->head[f->l3] >> 4 != 6)
        return 0;
    *proto = f->head[f->l3 + IPV6_NEXT_AT];
    uint32_t at = f->l3 + IPV6_BYTES;
    while (*proto == PROTO_HOP_BY_HOP || *proto == PROTO_ROUTING || *proto == PROTO_DESTINATION) {
        if (!take_head(f, at + 8)) // RFC 8200, 4.3: at least that
            return 0;
        *proto = f->head[at];
        at += (f->head[at + 1] + 1u) * 8;
        if (!take_head(f, at))
            return 0;
    }
    return at;
}

struct claim { // what a gso_type says of the headers
    uint8_t proto;
    uint8_t csum_offset;
    uint8_t gso4, gso6; // enum frame_gso; NONE: not with this version of IP
};

static const struct claim claims[] = {
    [VIRTIO_NET_HDR_GSO_TCPV4] = {PROTO_TCP, TCP_SUM_AT, .gso4 = FRAME_GSO_TCP4},
    [VIRTIO_NET_HDR_GSO_TCPV6] = {PROTO_TCP, TCP_SUM_AT, .gso6 = FRAME_GSO_TCP6},
    [VIRTIO_NET_HDR_GSO_UDP] = {PROTO_UDP, UDP_SUM_AT, FRAME_GSO_UDP, FRAME_GSO_UDP},
    [VIRTIO_NET_HDR_GSO_UDP_L4] = {PROTO_UDP, UDP_SUM_AT, FRAME_GSO_USO4, FRAME_GSO_USO6},
};

// Bytes up to the payload, all in head[]; 0: the headers do not bear out what @claim says.
static uint32_t parse_headers(struct frame *f, const struct claim *claim)
{
    if (!f->l3)
        return 0;
    bool is_v4 = load_be16(f->head + ETHER_TYPE_AT) == ETHER_IPV4;
    f->gso = is_v4 ? claim->gso4 : claim->gso6;
    uint8_t proto = 0;
    uint32_t l4 = is_v4 ? parse_ipv4(f, &proto) : parse_ipv6(f, &proto);
    if (f->gso == FRAME_GSO_NONE || !l4 || proto != claim->proto || f->csum_start != l4 ||
        f->csum_offset != claim->csum_offset)
        return 0;

    if (proto == PROTO_UDP)
        return take_head(f, l4 + UDP_BYTES) ? l4 + UDP_BYTES : 0;
    if (!take_head(f, l4 + TCP_BYTES))
        return 0;
    uint32_t bytes = (f->head[l4 + TCP_OFFSET_AT] >> 4) * 4u;
    return bytes >= TCP_BYTES && take_head(f, l4 + bytes) ? l4 + bytes : 0;
}

// Whether pieces of gso_size can be made.
static bool is_size_sound(const struct frame *f)
{
    // Fragments add a header to IPv6's, and are put together to one packet again.
    if (f->gso == FRAME_GSO_UDP &&
        (f->n_l4_head + IPV6_FRAGMENT_BYTES > FRAME_HEAD_MAX || f->bytes - f->l3 > UINT16_MAX))
        return false;
    return f->n_l4_head - f->l3 + f->gso_size <= UINT16_MAX &&
           f->bytes - f->csum_start <= (uint32_t)PIECES_MAX * f->gso_size;
}

// Whether one piece would hold all of it: segmentation is then not owed.
static bool is_one_piece(const struct frame *f)
{
    uint32_t headers = f->gso == FRAME_GSO_UDP ? f->csum_start : f->n_l4_head;
    return f->bytes <= headers + f->gso_size;
}

static bool parse_gso(struct frame *f, const struct virtio_net_hdr *hdr)
{
    uint8_t type = hdr->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
    bool has_ecn = hdr->gso_type & VIRTIO_NET_HDR_GSO_ECN;
    if (type >= ARRAY_LEN(claims) || !f->needs_csum)
        return false;
    uint32_t bytes = parse_headers(f, &claims[type]);
    if (!bytes || (has_ecn && claims[type].proto != PROTO_TCP))
        return false;
    f->n_l4_head = (uint16_t)bytes;
    f->gso_size = hdr->gso_size;
    f->has_ecn = has_ecn;
    if (!f->gso_size)
        return false;
    if (is_one_piece(f)) {
        f->gso = FRAME_GSO_NONE;
        f->gso_size = 0;
        f->has_ecn = false;
        return true;
    }
    if (f->gso == FRAME_GSO_UDP) // all fragments but the last are multiples of 8 bytes (RFC 791)
        f->gso_size &= (uint16_t)~7u;
    return is_size_sound(f);
}

// 5.1.6.2. @cut: bytes of a tag that is not in the frame any more.
static __attribute__((noinline)) enum drop
parse_offloads(struct frame *f, const struct virtio_net_hdr *hdr, uint32_t cut)
{
    if (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        uint32_t start = hdr->csum_start, field = start + hdr->csum_offset;
        if (start < ETHER_BYTES + cut || !take_head(f, field - cut + 2))
            return DROP_BAD_HEADER;
        f->needs_csum = true;
        f->csum_start = (uint16_t)(start - cut);
        f->csum_offset = hdr->csum_offset;
    }
    if (hdr->gso_type != VIRTIO_NET_HDR_GSO_NONE && !parse_gso(f, hdr))
        return DROP_BAD_HEADER;
    return DROP_NONE;
}

// ---- calls -------------------------------------------------------------------------------

static inline void set_plain(struct frame *f)
{
    f->gso = FRAME_GSO_NONE;
    f->needs_csum = false;
    f->has_ecn = false;
    f->is_csum_good = false;
    f->gso_size = 0;
    f->n_l4_head = 0;
    f->csum_start = 0;
    f->csum_offset = 0;
    f->vlan = 0;
}

// Take a tag off: its number, and the type behind it in its place.
static enum drop cut_tag(struct frame *f, uint64_t *bytes)
{
    uint8_t tag[ETHER_TAG_BYTES]; // control information, then the type that was tagged
    if (*bytes < ETHER_BYTES + sizeof(tag))
        return DROP_RUNT;
    take(f, tag, sizeof(tag));
    f->vlan = load_be16(tag) & 0xefff;
    memcpy(f->head + ETHER_TYPE_AT, tag + 2, 2);
    *bytes -= sizeof(tag);
    return DROP_NONE;
}

enum drop frame_parse(struct frame *f, const struct iovec *iov, unsigned n, uint32_t skip,
                      const struct virtio_net_hdr *hdr)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < n; i++)
        bytes += iov[i].iov_len;
    if (unlikely(bytes < (uint64_t)skip + FRAME_BYTES_MIN))
        return DROP_RUNT;
    bytes -= skip;
    for (; unlikely(skip > iov->iov_len); iov++, n--)
        skip -= (uint32_t)iov->iov_len;

    set_plain(f);
    f->iov = iov;
    f->n_iov = (uint16_t)n;
    f->skip = skip;
    take(f, f->head, ETHER_BYTES);
    f->n_head = ETHER_BYTES;
    uint32_t cut = 0;
    if (load_be16(f->head + ETHER_TYPE_AT) == ETHER_VLAN) {
        enum drop reason = cut_tag(f, &bytes);
        if (reason)
            return reason;
        cut = ETHER_TAG_BYTES;
    }
    if (unlikely(bytes > FRAME_BYTES_MAX))
        return DROP_GIANT;
    f->bytes = (uint32_t)bytes;
    uint16_t type = load_be16(f->head + ETHER_TYPE_AT);
    f->l3 = type == ETHER_IPV4 || type == ETHER_IPV6 ? ETHER_BYTES : 0;

    if (unlikely(hdr && (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM || hdr->gso_type)))
        return parse_offloads(f, hdr, cut);
    return DROP_NONE;
}

void frame_copy(const struct frame *f, uint32_t offset, void *to, uint32_t bytes)
{
    uint8_t *out = to;
    if (offset < f->n_head) {
        uint32_t part = MIN(bytes, f->n_head - offset);
        memcpy(out, f->head + offset, part);
        out += part;
        bytes -= part;
        offset += part;
    }
    size_t at = (size_t)offset - f->n_head + f->skip;
    for (const struct iovec *iov = f->iov; bytes; iov++) {
        if (at >= iov->iov_len) {
            at -= iov->iov_len;
            continue;
        }
        uint32_t part = (uint32_t)MIN(bytes, iov->iov_len - at);
        memcpy(out, (const uint8_t *)iov->iov_base + at, part);
        out += part;
        bytes -= part;
        at = 0;
    }
}

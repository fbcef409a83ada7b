// SPDX-License-Identifier: Apache-2.0
//
// Each piece repeats the original's headers, changed as its place among the pieces asks:
//
//                 every piece                          the first alone   the last alone
//     TCP         IP lengths, IPv4 id + n, sequence    CWR               FIN, PSH
//     UDP (USO)   IP and UDP lengths, IPv4 id + n
//     UDP (UFO)   IP length, offset, more-fragments    the UDP header
//
// A transport checksum is not summed up from IP addresses: the sender put the sum of the pseudo
// header there (5.1.6.2), of which only the length changes. So routing headers and the like, whose
// pseudo header has other addresses, need no thought.
#include "devices/offload.h"

#include "devices/checksum.h"
#include "devices/packet.h"

unsigned offload_of_guest(uint64_t features)
{
    static const struct {
        unsigned bit, offload;
    } map[] = {
        {VIRTIO_NET_F_GUEST_CSUM, OFFLOAD_CSUM}, {VIRTIO_NET_F_GUEST_TSO4, OFFLOAD_TSO4},
        {VIRTIO_NET_F_GUEST_TSO6, OFFLOAD_TSO6}, {VIRTIO_NET_F_GUEST_ECN, OFFLOAD_ECN},
        {VIRTIO_NET_F_GUEST_UFO, OFFLOAD_UFO},   {VIRTIO_NET_F_GUEST_USO4, OFFLOAD_USO4},
        {VIRTIO_NET_F_GUEST_USO6, OFFLOAD_USO6},
    };
    unsigned offloads = 0;
    for (unsigned i = 0; i < ARRAY_LEN(map); i++) {
        if (features & VIRTIO_BIT(map[i].bit))
            offloads |= map[i].offload;
    }
    return offloads & OFFLOAD_CSUM ? offloads : 0; // 5.1.3.1: all of them need it
}

bool offload_is_taken(const struct frame *f, unsigned offloads)
{
    static const uint8_t needed[] = {
        [FRAME_GSO_NONE] = OFFLOAD_CSUM,
        [FRAME_GSO_TCP4] = OFFLOAD_CSUM | OFFLOAD_TSO4,
        [FRAME_GSO_TCP6] = OFFLOAD_CSUM | OFFLOAD_TSO6,
        [FRAME_GSO_UDP] = OFFLOAD_CSUM | OFFLOAD_UFO,
        [FRAME_GSO_USO4] = OFFLOAD_CSUM | OFFLOAD_USO4,
        [FRAME_GSO_USO6] = OFFLOAD_CSUM | OFFLOAD_USO6,
    };
    if (!f->needs_csum)
        return true;
    unsigned missing = (needed[f->gso] | (f->has_ecn ? OFFLOAD_ECN : 0u)) & ~offloads;
    return !missing;
}

// ---- checksums ---------------------------------------------------------------------------

// Add @bytes of the frame's payload from @offset on, which is behind head[].
static void sum_payload(struct checksum *c, const struct frame *f, uint32_t offset, uint32_t bytes)
{
    size_t at = (size_t)offset - f->n_head + f->skip;
    for (const struct iovec *iov = f->iov; bytes; iov++) {
        if (at >= iov->iov_len) {
            at -= iov->iov_len;
            continue;
        }
        uint32_t part = (uint32_t)MIN(bytes, iov->iov_len - at);
        checksum_add(c, (const uint8_t *)iov->iov_base + at, part);
        bytes -= part;
        at = 0;
    }
}

// Finish the checksum that @p's header has begun, over its transport header and @bytes of payload.
static void finish_checksum(const struct frame *f, struct segment *p, uint32_t bytes)
{
    struct checksum c = {0};
    checksum_add(&c, p->head + f->csum_start, p->n_head - f->csum_start);
    sum_payload(&c, f, p->offset, bytes);
    store_be16(p->head + f->csum_start + f->csum_offset, checksum_field(&c));
    p->needs_csum = false;
}

// The sum in a checksum field is of a transport part of @from bytes: make it one of @to.
static void change_length(uint8_t *field, uint32_t from, uint32_t to)
{
    uint32_t sum = load_be16(field) + (uint16_t) ~((from >> 16) + (from & UINT16_MAX)) + to;
    sum = (sum & UINT16_MAX) + (sum >> 16);
    store_be16(field, (sum & UINT16_MAX) + (sum >> 16));
}

static void set_ipv4_sum(uint8_t *ip)
{
    struct checksum c = {0};
    store_be16(ip + IPV4_SUM_AT, 0);
    checksum_add(&c, ip, (ip[0] & 15ul) * 4);
    store_be16(ip + IPV4_SUM_AT, checksum_field(&c));
}

// ---- pieces ------------------------------------------------------------------------------

static bool is_ipv4(const struct frame *f)
{
    return load_be16(f->head + ETHER_TYPE_AT) == ETHER_IPV4;
}

// What all pieces cut up is from here on. Fragments share the UDP header out as well.
static uint32_t cut_from(const struct frame *f)
{
    return f->gso == FRAME_GSO_UDP ? f->csum_start : f->n_l4_head;
}

static void set_ip(const struct frame *f, struct segment *p, unsigned number)
{
    uint8_t *ip = p->head + f->l3;
    uint32_t bytes = p->n_head - f->l3 + p->bytes;
    if (!is_ipv4(f)) {
        store_be16(ip + IPV6_LENGTH_AT, bytes - IPV6_BYTES);
        return;
    }
    store_be16(ip + IPV4_LENGTH_AT, bytes);
    store_be16(ip + IPV4_ID_AT, load_be16(ip + IPV4_ID_AT) + number);
    set_ipv4_sum(ip);
}

static void set_tcp(const struct segmenter *s, uint8_t *tcp, uint32_t first, bool is_last)
{
    uint32_t sent = s->next - first;
    store_be32(tcp + TCP_SEQUENCE_AT, load_be32(tcp + TCP_SEQUENCE_AT) + sent);
    if (sent)
        tcp[TCP_FLAGS_AT] &= (uint8_t)~TCP_CWR; // RFC 3168, 6.1.2
    if (!is_last)
        tcp[TCP_FLAGS_AT] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
}

// TCP, and UDP in datagrams: the transport header is in each piece.
static void make_segment(struct segmenter *s, struct segment *p)
{
    const struct frame *f = s->frame;
    p->n_head = f->n_l4_head;
    memcpy(p->head, f->head, p->n_head);
    p->offset = s->next;
    p->bytes = MIN(f->gso_size, f->bytes - s->next);

    uint8_t *l4 = p->head + f->csum_start;
    uint32_t bytes = p->n_head - f->csum_start + p->bytes;
    set_ip(f, p, s->n);
    if (f->gso == FRAME_GSO_TCP4 || f->gso == FRAME_GSO_TCP6)
        set_tcp(s, l4, f->n_l4_head, s->next + p->bytes == f->bytes);
    else
        store_be16(l4 + UDP_LENGTH_AT, bytes);
    change_length(l4 + f->csum_offset, f->bytes - f->csum_start, bytes);
    p->needs_csum = s->offloads & OFFLOAD_CSUM;
    if (!p->needs_csum)
        finish_checksum(f, p, p->bytes);
}

// RFC 8200, 4.5: the fragment header comes behind what each fragment repeats. Of extension headers
// all are repeated: they are small, and which must be depends on the route.
static void insert_fragment_header(const struct frame *f, struct segment *p, uint32_t place,
                                   uint32_t id)
{
    uint8_t *next = p->head + f->l3 + IPV6_NEXT_AT;
    uint32_t at = f->l3 + IPV6_BYTES;
    while (at < f->csum_start) {
        next = p->head + at;
        at += (p->head[at + 1] + 1u) * 8;
    }
    uint8_t *header = p->head + at;
    memmove(header + IPV6_FRAGMENT_BYTES, header, p->n_head - at);
    p->n_head += IPV6_FRAGMENT_BYTES;
    header[0] = *next;
    header[1] = 0;
    store_be16(header + 2, place);
    store_be32(header + 4, id);
    *next = PROTO_FRAGMENT;
}

// An IP fragment. The checksum is over all of them, so it is finished here.
static void make_fragment(struct segmenter *s, struct segment *p)
{
    const struct frame *f = s->frame;
    uint32_t done = s->next - f->csum_start;
    uint32_t bytes = MIN(f->gso_size, f->bytes - s->next);
    bool is_last = s->next + bytes == f->bytes;

    p->n_head = done ? f->csum_start : f->n_l4_head;
    memcpy(p->head, f->head, p->n_head);
    p->offset = done ? s->next : f->n_l4_head;
    p->bytes = s->next + bytes - p->offset;
    if (!done)
        finish_checksum(f, p, f->bytes - f->n_l4_head);
    p->needs_csum = false;

    uint8_t *ip = p->head + f->l3;
    if (is_ipv4(f))
        store_be16(ip + IPV4_FRAGMENT_AT, done / 8 | (is_last ? 0 : IPV4_MORE_FRAGMENTS));
    else
        insert_fragment_header(f, p, done | !is_last, s->id);
    set_ip(f, p, 0); // the same id in all of them
}

static void make_whole(const struct segmenter *s, struct segment *p)
{
    const struct frame *f = s->frame;
    p->n_head = f->n_head;
    memcpy(p->head, f->head, p->n_head);
    p->offset = f->n_head;
    p->bytes = f->bytes - f->n_head;
    p->needs_csum = f->needs_csum;
    if (f->needs_csum && !(s->offloads & OFFLOAD_CSUM))
        finish_checksum(f, p, p->bytes);
}

// ---- calls -------------------------------------------------------------------------------

void offload_begin(struct segmenter *s, const struct frame *f, unsigned offloads)
{
    *s = (struct segmenter){
        .frame = f,
        .offloads = offloads,
        .next = f->gso == FRAME_GSO_NONE ? 0 : cut_from(f),
        // Not the same again while another fragment of it may be on its way (RFC 8200, 4.5).
        .id = (uint32_t)(cycles_now() >> 6) * 0x9e3779b1u,
    };
}

bool offload_next(struct segmenter *s, struct segment *piece)
{
    const struct frame *f = s->frame;
    if (s->next >= f->bytes)
        return false;
    if (f->gso == FRAME_GSO_NONE)
        make_whole(s, piece);
    else if (f->gso == FRAME_GSO_UDP)
        make_fragment(s, piece);
    else
        make_segment(s, piece);
    s->next = piece->offset + piece->bytes;
    s->n++;
    return true;
}

unsigned offload_count(const struct frame *f, unsigned offloads)
{
    if (f->gso == FRAME_GSO_NONE || offload_is_taken(f, offloads))
        return 1;
    return (f->bytes - cut_from(f) + f->gso_size - 1) / f->gso_size;
}

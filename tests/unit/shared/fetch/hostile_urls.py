"""Known attacks that try to reach internal addresses through a URL, each with the error code that refuses it.

Hosts are tried with several ports and schemes, URLs as they are; names resolve as ``DNS_RECORDS`` says.
"""

# ruff: noqa: RUF001 -- confusable letters are the subject of these tests

from collections.abc import Iterable
from ipaddress import ip_address

from shared.fetch.addresses import Address

PUBLIC_4, PUBLIC_6 = "93.184.215.14", "2606:4700::6810:84e5"

DNS_RECORDS: dict[str, list[str]] = {
    "public.example": [PUBLIC_4, PUBLIC_6],
    "xn--bcher-kva.example": [PUBLIC_4],
    "under_score.example": [PUBLIC_4],
    "loopback.example": ["127.0.0.1"],
    "loopback6.example": ["::1"],
    "private.example": ["192.168.1.1"],
    "metadata.example": ["169.254.169.254"],
    "first-public.example": [PUBLIC_4, "10.0.0.1"],
    "last-public.example": ["127.0.0.1", PUBLIC_4],
    "one-of-six.example": [PUBLIC_4, PUBLIC_6, "93.184.215.15", "93.184.215.16", "fe80::1", "93.184.215.17"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "scoped.example": ["fe80::1%1"],
    "scoped-public.example": [f"{PUBLIC_6}%1"],
    "nat64.example": ["64:ff9b::a9fe:a9fe"],
    "empty.example": [],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "isatap.example": ["2a00::5efe:7f00:1"],
    "teredo.example": ["2001:0:7f00:1::", PUBLIC_4],
    "to4.example": ["2002:7f00:1::"],
    "compatible.example": [PUBLIC_6, "::7f00:1"],
    "unspecified.example": ["0.0.0.0"],
    "only6.example": ["fd00::1"],
    "mapped-scope.example": ["::ffff:10.0.0.1%2"],
}


def resolve(name: str) -> Iterable[Address]:
    """Resolve a name from ``DNS_RECORDS``."""
    if name not in DNS_RECORDS:
        raise OSError(-2, "Name or service not known")
    return map(ip_address, DNS_RECORDS[name])


HOSTS = {
    "blocked_address": """
        127.0.0.1           127.0.0.2           127.255.255.254     127.0.0.1.
        2130706433          017700000001        0x7f000001          0x7F000001          0X7F.1
        127.1               127.0.1             0177.1              0x7f.1              0x7f.0.0.0x1
        0177.0.0.01         00000177.0.0.1      0x0000007f.0.0.1    127.0x0.00.1        127.0.0.0x1.
        0                   0.0.0.0             0x0                 00                  0.
        0.1.2.3             0x                  0.0                 0x.0x.0x.0x
        １２７.０.０.１       １２７．０．０．１    127。0。0。1         127｡0｡0｡1            ⑫7.0.0.1
        ①②⑦.⓪.⓪.①         𝟏𝟐𝟕.𝟎.𝟎.𝟏           𝟙𝟚𝟟.0.0.1           ²1³０７０６４３３        ０ｘ７ｆ．１
        127．1              127.1.1             127.0.0.0x1         0x7F.0x0.0x0.0x1    0x7f000001.         65536
        0x00000000          0x0.0               1                   ⓪x7f.1              ０1７7.1             0Ⅹ7f.1
        0𝗑7f000001          𝟬x𝟳f.1              𝟎𝐱𝟕𝐟.𝟏              127.0.0.₁           ¹²⁷.⁰.⁰.¹           127。1。
        10.0.0.1            10.255.255.255      167772161           012.1               0xa.0.0.1
        172.16.0.1          172.31.255.255      2886729729          192.168.0.1         192.168.257
        3232235777          0xc0.0xa8.0x01.0x01 0300.0250.1.1       100.64.0.1          100.127.255.255
        169.254.169.254     2852039166          0xa9fea9fe          0251.0376.0251.0376 169.254.43518
        169.254.170.2       169.254.169.253     100.100.100.200     192.0.0.192         168.63.129.16
        0xA83F8110          192.0.0.1           192.0.0.9           192.0.2.1           198.51.100.7
        203.0.113.9         198.18.0.1          198.19.255.255      192.88.99.1         224.0.0.1
        239.255.255.250     240.0.0.1           255.255.255.255     4294967295          0xffffffff

        [::1]               [::]                [0:0:0:0:0:0:0:1]   [0000::0001]        [::0.0.0.1]
        [::ffff:127.0.0.1]  [::ffff:7f00:1]     [::FFFF:0:0]        [0:0:0:0:0:ffff:127.0.0.1]
        [::ffff:169.254.169.254]                [::ffff:a9fe:a9fe]  [::ffff:10.0.0.1]   [::ffff:168.63.129.16]
        [::127.0.0.1]       [::7f00:1]          [::8.8.8.8]         [::ffff:0:127.0.0.1]
        [2002:7f00:1::]     [2002:a9fe:a9fe::1] [2002:a00:1::]      [2002:808:808::1]
        [2001::1]           [2001:0:53aa:64c:0:0:80ff:fffe]         [2001:0:7f00:1::]
        [64:ff9b::127.0.0.1]                    [64:ff9b::7f00:1]   [64:ff9b::a9fe:a9fe]
        [64:ff9b::10.0.0.1] [64:ff9b:1::1]      [64:ff9b:1::8.8.8.8]                    [64:ff9b:1:ffff::1]
        [2606:4700::5efe:127.0.0.1]             [2606:4700::200:5efe:10.0.0.1]          [fe80::5efe:127.0.0.1]
        [fe80::1]           [febf::1]           [fec0::1]           [fc00::1]           [fd00::1]
        [fd00:ec2::254]     [fd20:ce::254]      [fe80::a9fe:a9fe]   [ff02::1]           [ff0e::1]
        [2001:db8::1]       [3fff::1]           [2001:2::1]         [2001:10::1]        [2001:20::1]
        [100::1]            [100:0:0:1::1]      [5f00::1]           [4000::1]           [8000::1]
        [0:1::1]            [1fff::1]           [::1.2.3.4]         [::ffff:0:a00:1]    [::ffff:0:0:127.0.0.1]
        [64:ff9b::]         [64:ff9b::255.255.255.255]              [64:ff9b:0:1::8.8.8.8]                  [64:ff9b:2::1]
        [2001:1ff:ffff::1]  [2001:1::1]         [2002:c0a8:101::]   [2a00::5efe:8.8.8.8]                    [2a00::200:5efe:a9fe:a9fe]
        [::5efe:7f00:1]     [::fffe:127.0.0.1]  [fec0:0:0:ffff::1]  [ffff::127.0.0.1]   [e000::1]

        loopback.example    LOOPBACK.example.   loopback6.example   private.example     metadata.example
        first-public.example                    last-public.example one-of-six.example  mapped.example
        scoped-public.example                   scoped.example      nat64.example       127.0.0.1.nip.example                   ｌｏｏｐｂａｃｋ.example
        isatap.example      teredo.example      to4.example         compatible.example  unspecified.example only6.example
        mapped-scope.example
    """,
    "blocked_host": """
        localhost           LOCALHOST           localhost.          sub.localhost       localhost.localdomain
        ｌｏｃａｌｈｏｓｔ       ⓛocalhost           ip6-localhost       printer.local
        metadata.google.internal                METADATA.google.INTERNAL.               metadata
        instance-data       kubernetes          kubernetes.default.svc.cluster.local    host.docker.internal
        mongodb             redis               router.lan          nas.home            intranet.corp
        box.home.arpa       hidden.onion        vault.private       a.intranet          localhost.localdomain.
        ⅼocalhost           Localhoſt           locaℓhost           a.localhost。        _.localhost         xn--localhost
        Kubernetes          kubernetes。default.svc.cluster.local     metadata｡google．internal
    """,
    "bad_url": """
        127.0.0.1..         .127.0.0.1          127..1              1.2.3.4.5           256.0.0.1
        127.0.0.256         4294967296          0x100000000         08.0.0.1            127.0.0.09
        0x7g.0.0.1.0x1      a.1                 1e1.1               public.example.1    127.0.0.1%00
        127%2e0%2e0%2e1     %31%32%37.0.0.1     localhost%00.public.example             public.example%2f
        127.0.0.1%20        -public.example     public-.example     public..example     .public.example
        pub!lic.example     *.example           public,example      a'b.example         (public).example
        $(id).example                           :80                 ::1                 fe80::1
        [::1                ::1]                [127.0.0.1]         [public.example]    [v1.fe80::1]
        [fe80::1%25eth0]    [fe80::1%eth0]      [::1%1]             [2606:4700::1%25lo] [::ffff:127.1]
        []                  [::1]]              [[::1]]             [::g]               [1:2:3:4:5:6:7:8:9]
        xn--.              ☃-.example          ؀.example           a⁄b.example         public．．example
        public.example⁄.evil.example            127.0.0.1／.public.example               public.example＠127.0.0.1
        127.0.0.1：80        ٣.example.١         ١٢٧.٠.٠.١           127٠.0.0.1          127․0․0․1           127﹒0﹒0﹒1
        127‥1               ⒈27.0.0.1           127.0.0.⒈           ❶27.0.0.1           🄁27.1               1⃣27.0.0.1
        localhost.。         localhost%2e        localhost;          localhost"x         localhost|x         localhost{}
        localhost`          localhost~          localhost=          public.example。。    public.example﹫127.0.0.1
        public.example∕x    public.example＼x    public.example＃x    public.example？x    ℀.example           public﹒example
        xn--localhost-      xn--a-.example      xn--a.ü.example     ü.xn--.example      xn--ı               public·example
        [::1].              [::1]x              [::1]:80:80         [::00001]           [1::2::3]           [::1/128]
        [：：1]               [::ffff:１27.0.0.1]  [::ffff:0177.0.0.1] [::ffff:127.0.0.01] [::ffff:127.0.0.1.] [::ffff:7f00:1%]
        [0:0:0:0:0:0:0:0.0.0.1]                 [0x::1]             [fe80::1%251]
    """,
    "unresolvable_host": """
        nowhere.example     empty.example       bücher.nowhere      public.example.nowhere
    """,
}

URLS = {
    "bad_url": [
        "",
        " ",
        "/",
        "//127.0.0.1/",
        "127.0.0.1",
        "http",
        "http:",
        "http:/",
        "http://",
        "http:///",
        "http:///127.0.0.1/",
        "http:127.0.0.1/",
        "http:/127.0.0.1/",
        "http:\\\\127.0.0.1\\",
        "http://?127.0.0.1",
        "http://#@127.0.0.1",
        " http://127.0.0.1/",
        "http ://127.0.0.1/",
        "http://127.0.0.1 /",
        "http://127.0.0.1\t/",
        "http://127.0.0.1\n/",
        "ht\ntp://127.0.0.1/",
        "http://public.example/\r\nHost: 127.0.0.1",
        "http://public.example/ HTTP/1.1\r\n\r\nGET /",
        "http://public.example\x00.127.0.0.1/",
        "http://public.example/\x7f",
        "http://public.example/\x85",
        "http://public.example/\ud800",
        "http://\ud83d.example/",
        "ｈttp://127.0.0.1/",
        "file:///etc/passwd",
        "file://127.0.0.1/etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "dict://127.0.0.1:6379/FLUSHALL",
        "ldap://127.0.0.1/",
        "ws://127.0.0.1/",
        "unix:///var/run/docker.sock",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "about:blank",
        "jar:http://127.0.0.1!/",
        "view-source:http://127.0.0.1/",
        "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
        "url:http://127.0.0.1/",
        "http://user@public.example/",
        "http://user:word@public.example/",
        "http://:word@public.example/",
        "http://@public.example/",
        "http://public.example@127.0.0.1/",
        "http://public.example:80@127.0.0.1/",
        "http://public.example%20@127.0.0.1/",
        "http://127.0.0.1\\@public.example/",
        "http://public.example\\@127.0.0.1/",
        "http://public.example\\.127.0.0.1/",
        "http://public.example:80\\@127.0.0.1/",
        "http://a@b@127.0.0.1/",
        "http://127.0.0.1:80:80/",
        "http://public.example\u202e/",
        "http://\u2066127.0.0.1/",
        "http://\u200d127.0.0.1/",
        "http://public.example\u2028/",
        "http://localhost\u3000/",
        "http://[::1\u200b]/",
        "http://public.example:80\u00a0/",
        "http://public.example:\u00b2/",
        "http://" + "\u0f73" * 4000,
        f"http://{'xn--' + 'ü' * 4000}/",
        "http://public.example:-80/",
        "http://public.example:+80/",
        "http://public.example: 80/",
        "http://public.example:80a/",
        "http://public.example:0x50/",
        "http://public.example:８０/",
        "http://public.example:٨٠/",
        "http://public.example:0/",
        "http://public.example:65536/",
        "http://public.example:65616/",
        "http://public.example:4294967376/",
        "http://public.example:000080/",
        "http://public.example:1/",
        "http://public.example:22/",
        "http://public.example:8080/",
        "http://public.example:6379/",
        "https://public.example:27017/",
        f"http://{PUBLIC_4}:5000/",
        f"http://[{PUBLIC_6}]:8443/",
        f"http://{'a' * 64}.example/",
        f"http://{'a.' * 127}example/",
        f"http://{'ü' * 64}.example/",
        f"http://{'1' * 5000}/",
        f"http://{'0' * 300}177.0.0.1/",
        f"http://public.example/{'a' * 8190}",
        f"http://public.example/{'ü' * 2000}",
        f"http://public.example:{'0' * 5000}80/",
    ],
    "blocked_host": ["http://loc\u00adalhost/", "http://\u200blocalhost/"],
    "blocked_address": [
        "http://12\u00ad7.0.0.1/",
        "http://127.0.0.1\u200b/",
        "http://12\u034f7.0.0.1/",
        "http://127\ufe0e.0.0.1/",
        "http://\u180b127.0.0.1/",
        "http://\ufeff127.1/",
        "HTTP://127.0.0.1/",
        "hTtPs://127.0.0.1",
        "http://127.0.0.1?@public.example/",
        "http://127.0.0.1#@public.example/",
        "http://127.0.0.1#.public.example",
        "http://127.0.0.1/@public.example",
        "http://127.0.0.1:/",
        "https://127.0.0.1:80/",
        "http://127.0.0.1:00080/",
        "http://127.0.0.1:22/",
    ],
}


def hosts() -> list[tuple[str, str]]:
    """Return every host with its error code."""
    return [(host, code) for code, table in HOSTS.items() for host in table.split()]


def attacks() -> list[tuple[str, str]]:
    """Return every URL with its error code, those of ``hosts`` included."""
    return [(f"http://{host}/", code) for host, code in hosts()] + [
        (url, code) for code, urls in URLS.items() for url in urls
    ]

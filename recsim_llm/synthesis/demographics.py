"""Demographics of the built-in personas: group proportions, names, places, and which themes groups prefer.

The proportions are set by hand to be plausible for an international service, not taken from a census. They are
published here and in ``world.json`` so that measures of fairness know what they stand on.
"""

from __future__ import annotations

GENDERS = {"woman": 0.49, "man": 0.49, "nonbinary": 0.02}
AGE_BANDS = {"18-24": 0.17, "25-34": 0.24, "35-44": 0.20, "45-54": 0.16, "55-64": 0.13, "65+": 0.10}
REGIONS = {
    "Europe": 0.27,
    "North America": 0.23,
    "Latin America": 0.14,
    "Africa": 0.12,
    "South Asia": 0.12,
    "East Asia and Pacific": 0.12,
}
AGES = {"18-24": (18, 24), "25-34": (25, 34), "35-44": (35, 44), "45-54": (45, 54), "55-64": (55, 64), "65+": (65, 84)}

_NAMES = {
    "Europe": (
        "Ingrid Clara Marta Elif Sofia Anneke Roisin Giulia Katya Freya Nuria Hedda Jana Odile",
        "Jonas Tomasz Luca Declan Henrik Pavel Rui Emil Giorgos Lars Matteo Stefan Joris Alasdair",
        "Robin Sascha Kim Noa",
    ),
    "North America": (
        "Denise Kayla Maureen Tasha Emily Rosario Beth Simone Jolene Priscilla Heather Dana Latoya Gwen",
        "Tyler Marcus Wendell Jake Andre Curtis Miles Doug Ethan Reggie Walt Corey Luis Nathan",
        "Riley Jordan Quinn Avery",
    ),
    "Latin America": (
        "Lucía Valentina Marisol Camila Beatriz Ximena Paola Renata Yadira Inés Jimena Luana Noelia Rocío",
        "Mateo Joaquín Rafael Diego Thiago Hernán Wilson Emiliano Bruno Gustavo Iván Martín César Nelson",
        "Ariel Guadalupe Cruz Alex",
    ),
    "Africa": (
        "Amara Thandiwe Wanjiru Fatou Abena Zainab Lindiwe Ngozi Salma Adjoa Makena Hodan Rania Chipo",
        "Kwame Tunde Sipho Baraka Idrissa Chidi Yusuf Kofi Tendai Moussa Obinna Hassan Juma Ayo",
        "Tau Ife Amani Sanaa",
    ),
    "South Asia": (
        "Priya Ananya Farzana Lakshmi Nadia Meera Shanta Ruwani Kavita Sadia Deepa Ishani Zoya Anjali",
        "Arjun Rahul Imran Sanjay Nuwan Farhan Vikram Anil Tariq Kiran Suresh Bilal Dev Manoj",
        "Jaya Noor Kiran Roshan",
    ),
    "East Asia and Pacific": (
        "Mei Yuki Ji-woo Linh Siti Haruka Xiulan Aroha Minji Dewi Sakura Thuy Grace Hana",
        "Kenji Wei Min-jun Anh Budi Haruto Jun Tane Rizal Hiroshi Tuan Seung Liam Kai",
        "Ren Sky Yuri Jin",
    ),
}
NAMES = {
    region: dict(zip(GENDERS, (names.split() for names in lists), strict=True)) for region, lists in _NAMES.items()
}
"""First names by region and gender."""

_PLACES = {
    "Europe": "Lyon, Gdańsk, Leeds, Porto, Ghent, Tampere, Bologna, Brno, Cork, Graz, Valencia, Thessaloniki, Aarhus",
    "North America": "Tulsa, Halifax, Oakland, Pittsburgh, Winnipeg, Savannah, Boise, Detroit, Tucson, Buffalo",
    "Latin America": "Cali, Rosario, Guadalajara, Recife, Cusco, Valparaíso, Quito, Mérida, Montevideo, Oaxaca",
    "Africa": "Kumasi, Mombasa, Durban, Ibadan, Dakar, Kampala, Sfax, Lusaka, Bamako, Addis Ababa, Kigali, Alexandria",
    "South Asia": "Pune, Kandy, Lahore, Chittagong, Kochi, Jaipur, Pokhara, Mysuru, Sylhet, Nagpur, Kolkata",
    "East Asia and Pacific": "Busan, Kaohsiung, Hội An, Sapporo, Dunedin, Surabaya, Chengdu, Cebu, Fukuoka, Hobart",
}
PLACES = {region: places.split(", ") for region, places in _PLACES.items()}

_LEANINGS = {
    "18-24": "hip hop, K-pop, drum and bass, techno, afrobeats, video games, gadgets, AI policy, fashion",
    "25-34": "indie rock, techno, house and disco, hip hop, synth-pop, startups, video games, cycling, rail and trails",
    "35-44": "punk, heavy metal, ambient, synth-pop, housing, cybersecurity, startups, cooking",
    "45-54": "soul and R&B, reggae and dub, salsa and cumbia, cycling, film, elections",
    "55-64": "jazz, blues, country, gardening, books, central banks, wildlife, medicine",
    "65+": "opera, baroque and strings, solo piano, jazz, gardening, archaeology, chess, books, medicine",
    "Europe": "techno, flamenco, football, cycling, rail and trails",
    "North America": "country, folk and bluegrass, hip hop, startups, courts and crime",
    "Latin America": "bossa nova, salsa and cumbia, football, elections",
    "Africa": "afrobeats, reggae and dub, football, startups",
    "South Asia": "film scores, chess, film, space",
    "East Asia and Pacific": "K-pop, solo piano, video games, gadgets",
    "woman": "soul and R&B, folk and bluegrass, books, fashion, gardening",
    "man": "heavy metal, techno, football, gadgets, cycling",
}
_LEANINGS_MEDIA = {
    "18-24": "mobile games, phone plans, coding bootcamps, dating apps, skateboarding, make-up tutorials",
    "25-34": "dating apps, meal kits, budget airlines, language courses, home workouts, travel vlogs",
    "35-44": "children's toys, camping gear, electric cars, board games, electronics repair",
    "45-54": "running shoes, coffee machines, solar panels, car reviews, woodworking, true crime",
    "55-64": "garden tools, wine clubs, home insurance, guitar lessons, history, knitting and sewing",
    "65+": "eyeglasses, garden tools, savings accounts, train rides, wildlife films, knitting and sewing",
    "Europe": "camping gear, wine clubs, budget airlines, football highlights, train rides",
    "North America": "coffee machines, pet food, laptops, stand-up comedy, car reviews",
    "Latin America": "beach holidays, phone plans, football highlights, live concerts",
    "Africa": "solar panels, phone plans, football highlights, stand-up comedy",
    "South Asia": "coding bootcamps, solar panels, mathematics, home cooking",
    "East Asia and Pacific": "skin care, laptops, mobile games, make-up tutorials",
    "woman": "skin care, children's toys, yoga and meditation, make-up tutorials, true crime",
    "man": "electric cars, laptops, car reviews, football highlights, electronics repair",
}
_LEANINGS_MARKET = {
    "18-24": "headphones, computers, perfume, dating, climbing, makeup, tabletop role-playing, language learning",
    "25-34": "coffee gear, luggage, pet supplies, backpacking, programming, job hunting, houseplants, weightlifting",
    "35-44": "baby gear, toys, cookware, parenting, personal finance, home baking, horror films",
    "45-54": "power tools, bicycle parts, fitness equipment, city politics, night sky, dogs",
    "55-64": "garden supplies, lamps, jewellery, birdwatching, knitting, watercolours",
    "65+": "garden supplies, bedding, stationery, birdwatching, book club, city politics, cats",
    "Europe": "bicycle parts, knitwear, home baking, climbing, city politics",
    "North America": "power tools, pet supplies, dogs, weightlifting, horror films",
    "Latin America": "musical instruments, perfume, dating, home baking",
    "Africa": "headphones, luggage, personal finance, language learning",
    "South Asia": "jewellery, cookware, job hunting, programming",
    "East Asia and Pacific": "cameras, skincare, stationery, cats, watercolours",
    "woman": "jewellery, skincare, knitwear, makeup, book club, knitting",
    "man": "power tools, computers, bicycle parts, programming, night sky",
}
LEANINGS = {
    group: ", ".join((themes, _LEANINGS_MEDIA[group], _LEANINGS_MARKET[group])) for group, themes in _LEANINGS.items()
}
"""Themes that a group likes more often than others do, by a factor of about two (see :data:`LEANING`)."""
LEANING = 0.7
"""Weight of a leaning, added to the log odds of a theme's being liked and taken from those of its being disliked."""

"""Random impressions and actions of a few users and items, with ties in time and exact edges."""

from hypothesis import strategies as st

ATTRIBUTION, WINDOW = 10, 20  # ms


def shown(request, at, scenario="search", user="u", item="a"):
    return {"request_id": request, "timestamp": at, "scenario": scenario, "user_id": user, "item_id": item}


def did(action, at, user="u", item="a", request=None, scenario=None):
    row = {"action": action, "timestamp": at, "user_id": user, "item_id": item}
    return {**row, "request_id": request, "scenario": scenario}


MOMENTS = st.integers(0, 60) | st.sampled_from([0, ATTRIBUTION, WINDOW, ATTRIBUTION + WINDOW])


@st.composite
def random_logs(draw):
    """Impressions, each (user, request, item) once, and actions, each once, with ties in time and exact edges."""
    users, item_ids = st.sampled_from(["u", "v"]), st.sampled_from(["a", "b", "c"])
    scenarios, requests = st.sampled_from(["search", "recommendation"]), st.sampled_from(["r0", "r1", "r2", "r3", "r4"])
    impressions = draw(
        st.lists(
            st.builds(shown, requests, MOMENTS, scenarios, users, item_ids),
            min_size=1,
            max_size=12,
            unique_by=lambda row: (row["user_id"], row["request_id"], row["item_id"]),
        )
    )
    names = st.sampled_from(["click", "cart", "purchase"])
    free = st.builds(did, names, MOMENTS, users, item_ids, st.none() | requests, st.none() | scenarios)
    following = st.builds(
        lambda row, name, delay, request, scenario: did(
            name,
            max(0, row["timestamp"] + delay),
            row["user_id"],
            row["item_id"],
            row["request_id"] if request else None,
            row["scenario"] if scenario else None,
        ),
        st.sampled_from(impressions),
        names,
        st.sampled_from([0, 1, ATTRIBUTION, ATTRIBUTION + 1, WINDOW, WINDOW + 1, -1, -WINDOW, -WINDOW - 1]),
        st.booleans(),
        st.booleans(),
    )
    actions = draw(st.lists(free | following, max_size=14, unique_by=lambda row: tuple(row.values())))
    return impressions, actions

"""``python -m support.heard_out serve …``: ends only when all who had connected have been heard.

However long a client on a busy machine takes to send what it connected for.
"""

from __future__ import annotations

from modelsplit_proxy import app
from support import patient
from support.patience import FAR_AWAY_S

if __name__ == "__main__":
    app._HEAR_OUT_S = FAR_AWAY_S  # type: ignore[misc]
    patient.main()

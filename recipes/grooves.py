"""Which of MMA's grooves plays which genre. Only their names: the grooves themselves are MMA's.

An entry is ``file:groove,groove*metre``: the library file, variants that serve as the sections of one piece, and the
beats of a bar where they are not 4.
"""

from __future__ import annotations

#: Genre -> entries, one a style, separated by blanks.
STYLES: dict[str, str] = {
    "ballad": """
        ballad:Ballad,Ballad1 pianoballad:PianoBallad,PianoBallad1,PianoBallad2
        popballad:PopBallad,PopBallad1,PopBallad2 rockballad:RockBallad,RockBallad1
        stringballad:StringBallad,StringBalladStrum guitarballad:GuitarBallad,GuitarBallad1
        folkballad:FolkBallad,FolkBallad1 rb-ballad:R&B-Ballad,R&B-BalladPlus casio/16beatballad1:16BeatBallad1
        casio/8beatballad1:8BeatBallad1 casio/8beatballad3:8BeatBallad3 casio/popballad:PopBallad
        casio/oldieballad:OldieBallad ballad128:Ballad128,Ballad128Plus casio/slowrock:SlowRock
        pflib/slowrock:slowrockA,slowrockB lullaby:Lullaby,Lullaby1
    """,
    "blues": """
        blues:Blues,BluesTriple,Blues1 slowblues:SlowBlues,SlowBluesWalk4
        fastblues:FastBlues,FastBluesWalk,FastBlues1 boggiewoggie:BoggieWoggie,BoggieWoggie1,BoggieWoggie2
        shuffleboggie:ShuffleBoggie,ShuffleBoggie1 casio/blues:Blues casio/shuffleboogie:ShuffleBoogie
        countryblues:CountryBlues,CountryBluesWalk,CountryBlues1 blues128:Blues128,Blues128Plus
        bluefolk:BlueFolk,BlueFolk2 zoom/blues:BLUS01,BLUS02
    """,
    "bossa nova": """
        bossanova:BossaNova,BossaNovaPlus kara/kbossa:kbossaA,kbossaB,kbossaC yamaha/jazzbossa:JazzBossaA,JazzBossaB
        zoom/bossa:BOSSA01,BOSSA02 yamaha/quando-g.s280:QuandoGSMainA,QuandoGSMainB
    """,
    "classical": """
        arpeggio44:Arpeggio4,Arpeggio8,Arpeggio48 arpeggiowaltz:ArpeggioWaltz,ArpeggioWaltz8,ArpeggioWaltz48*3
        hymn:Hymn,HymnWalk,HymnPlus spiritual:Spiritual,SpiritualPlus slowspiritual:SlowSpiritual,SlowSpiritualPlus
        bolero:Bolero,BoleroAlt,Bolero1 casio/serenade:Serenade
    """,
    "country": """
        bluegrass:BlueGrass,BlueGrassBottle countryswing:CountrySwing,CountrySwing1,CountrySwing2
        hillcountry:HillCountry,HillCountryPlus slowcountry:SlowCountry,SlowCountryWalk
        westernswing:WesternSwing,WesternSwingPlus kara/kwestballad:kwestballadA,kwestballadB,kwestballadC
        yamaha/western:WesternMainA,WesternMainB yamaha/jazzcountry:JazzCountryMainA,JazzCountryMainB
        zoom/country:CNTR01,CNTR02 zoom/cntry:CNTRY kara/2beatp:2beatpA,2beatpB,2beatpC
    """,
    "disco": """
        boneym:BoneyM,BoneyMPlus casio/discosoul:DiscoSoul casio/8beatdance:8BeatDance casio/dance1:Dance1
        casio/dance2:Dance2 casio/dancepop1:DancePop1 casio/dancepop2:DancePop2 casio/dancepop3:DancePop3
        zoom/dance:DANC01,DANC02,DANC03
    """,
    "electronic": """
        trance:Trance,Trance1,Trance2 casio/techno:Techno casio/house:House casio/rave:Rave casio/trance1:Trance1
        casio/trance2:Trance2 casio/electricpop:ElectricPop casio/latinhouse:LatinHouse casio/ambient1:Ambient1
        casio/ambient2:Ambient2 casio/ambient3:Ambient3 alexis/teamtechno:TeamTechno
        zoom/techno:TECH01,TECH02,TECH03 zoom/house:HOUS01,HOUS02 zoom/dnb:DnB01,DnB02,DnB03
        zoom/ambient:AMB01,AMB02
    """,
    "folk": """
        folk:Folk,FolkWalk,FolkArticulated folkrock:FolkRock,FolkRockPlus polka:Polka,PolkaArp,Polka1
        casio/polka:Polka casio/polkafox:PolkaFox casio/poppolka:PopPolka zydeco:Zydeco,ZydecoPlus
        hillcountry:HillCountry,HillCountryPlus bluefolk:BlueFolkPlus,BlueFolk2Plus softshoe:Softshoe,SoftShoePlus
    """,
    "funk": """
        bvfunk:BVFunk,BVFunkHorns casio/funk1:Funk1 casio/funk2:Funk2 kara/Kfunk1:Kfunk1A,Kfunk1B,Kfunk1C
        strut:Strut,Strut2 lfusion:LFusion,LFusion1 casio/fusion:Fusion zoom/funk:FUNK01,FUNK02,FUNK03
        zoom/fus16:16FUS01,16FUS02 zoom/fusion:FUS01,FUS02 casio/16beat2:16Beat2
    """,
    "hip hop": """
        alexis/hiphop:HipHop,HipHopPlus1,HipHopPlus2 casio/hip-hop:Hip-Hop casio/triphop:TripHop
        zoom/hiphop:HIP01,HIP02,HIP03 zoom/trip:TRIP01,TRIP02 casio/16shuffle1:16Shuffle1 casio/modernrb:ModernR&B
    """,
    "jazz": """
        bebop:Bebop,BebopPlus jazzcombo:JazzCombo,JazzCombo1,JazzCombo2 mellowjazz:MellowJazz,MellowJazzPlus
        modernjazz:ModernJazz,ModernJazz1,ModernJazz2 nitejazz:NiteJazz,NiteJazzPlus
        slowjazz:SlowJazz,SlowJazzWalk,SlowJazz1 dixie:Dixie,Dixie1,Dixie2 evansish:Evansish,Evansish1
        gypsyjazz:GypsyJazz descendingjazz:DescendingJazz,DescendingJazzPlus
        jazzguitar:JazzGuitar,JazzGuitarWalk,JazzGuitar1 folkyjazz:FolkyJazzGuitar,FolkyJazzPiano
        jazzrock:JazzRock,JazzRockWalk jazzrhumba:JazzRhumba,JazzRhumbaPlus casio/jazzcombo:JazzCombo
        casio/modernjazz:ModernJazz yamaha/jazztrio:JazzTrioMainA,JazzTrioMainB
        yamaha/jazzGrtrio:JazzGrTrioMainA,JazzGrTrioMainB yamaha/jazzbouncy:JazzBouncyMainA,JazzBouncyMainB
        ragtime:RagTime,RagtimePlus zoom/jazz:JAZZ01,JAZZ02
    """,
    "latin": """
        samba:Samba,SambaPlus rhumba:Rhumba,Rhumba1,Rhumba2 beguine:Beguine,Beguine1 chacha:ChaCha,ChaCha1
        merengue:Merengue,Merengue1,Merengue2 calypso:Calypso,Calypso1 slowbolero:SlowBolero,SlowBolero1
        cubanguitar:CubanGuitar,CubanGuitarPlus casio/latinfusion:LatinFusion zoom/latin:LATN01,LATN02,LATN03
        zoom/samba:SAMBA01,SAMBA02 zoom/afro:AFRO01,AFRO02
    """,
    "march": """
        bwmarch:BWMarch,BWMarchPlus dixiemarch:DixieMarch,DixieMarchPlus march:March,March1,March2
        casio/march1:March1 casio/germanmarch:GermanMarch
    """,
    "metal": """
        casio/heavymetal:HeavyMetal pflib/metal1:metal1A,metal1B pflib/metal2:metal2A,metal2B
        zoom/mtl:MTL01,MTL02,MTL03 zoom/thr:THRS01,THRS02 zoom/hrk:HRK01,HRK02,HRK03
    """,
    "pop": """
        8beat:8Beat,8Beat1,8BeatWalk bubblerock:BubbleRock,BubbleRockPlus casio/60spop:60sPop casio/80spop:80sPop
        casio/8beatpop1:8BeatPop1 casio/8beatpop2:8BeatPop2 casio/8beatpop3:8BeatPop3 casio/pop:Pop
        casio/worldpop:WorldPop casio/popshuffle1:PopShuffle1 casio/popshuffle2:PopShuffle2 casio/16beat1:16Beat1
        casio/16beat3:16Beat3 casio/8beat1:8Beat1 casio/8beat2:8Beat2 pflib/8beat1:8beat1A,8beat1B
        pflib/16beat1:16beat1A,16beat1B kara/happyshuffle:HappyshuffleA,HappyshuffleB,HappyshuffleC
        popspiritual:PopSpiritual,PopSpiritualPlus zoom/pop:POP01,POP02,POP03
    """,
    "reggae": """
        ska:Ska,Ska1 zoom/reggae:REGG01,REGG02 zoom/ska:SKA01,SKA02
    """,
    "rock": """
        50srock:50sRock,50sRock1 60srock:60sRock,60sRock1 basicrock:BasicRock,BasicRock4
        softrock:SoftRock,SoftRock1,SoftRock2 rock-128:Rock128,Rock128Plus twist:Twist,Twist4 casio/60srock:60sRock
        casio/rock1:Rock1 casio/rock2:Rock2 casio/digitalrock:DigitalRock casio/shufflerock:ShuffleRock
        casio/poprock1:PopRock1 casio/poprock2:PopRock2 kara/K50s_rock:50s_RockA,50s_RockB,50s_RockC
        kara/fasttwist:fasttwistA,fasttwistB yamaha/w-rock:W-RockMainA,W-RockMainB pflib/rock1:rock1A,rock1B
        casio/twist:Twist zoom/rock:ROCK01,ROCK02,ROCK03 zoom/punk:PUNK01,PUNK02
    """,
    "salsa": """
        salsa:Salsa,SalsaPlus son:Son,SonPlus mambo:Mambo,Mambo1,Mambo2 yamaha/salsa1:Salsa1MainA,Salsa1MainB
        yamaha/salsa2:Salsa2MainA,Salsa2MainB yamaha/mambo:MamboMainA,MamboMainB
    """,
    "soul": """
        dsoul:DSoul,DSoulPlus rb:R&B,R&BPlus casio/60ssoul:60sSoul casio/soul:Soul casio/soulpop:SoulPop
        kara/8beatmotown:8beatmotownA,8beatmotownB,8beatmotownC casio/r+b:R&B casio/mellowrb:MellowRB
        zoom/rnb:RnB01,RnB02,RnB03
    """,
    "swing": """
        swing:Swing,SwingWalk,Swing1 bigband:BigBand,BigBand1,BigBandPlus
        easyswing:EasySwing,EasySwingWalk,EasySwing1 fastswing:FastSwing,FastSwingWalk jive:Jive,Jive1
        casio/swing:Swing casio/slowswing:SlowSwing casio/fastbigband:FastBigBand casio/middlebigband:MiddleBigBand
        casio/slowbigband:SlowBigBand yamaha/jazzbasie:JazzBasieA,JazzBasieB
        yamaha/jazzswing:JazzSwingMainA,JazzSwingMainB charleston:Charleston,CharlestonWalk
        foxtrot:Foxtrot,FoxTrotPlus casio/foxtrot:Foxtrot quickstep:QuickStep,QuickStepWalk
        broadway:Broadway,Broadway1
    """,
    "tango": """
        tango:Tango,Tango1,TangoClean lighttango:LightTango,LightTango1
    """,
    "waltz": """
        waltz:Waltz,Waltz1,WaltzWalk*3 vienesewaltz:VieneseWaltz,VieneseWaltz1,VieneseWaltz2*3
        countrywaltz:CountryWaltz,CountryWaltz1,CountryWaltzWalk*3 fastwaltz:FastWaltz,FastWaltzWalk*3
        frenchwaltz:FrenchWaltz,FrenchWaltz1,FrenchWaltz2*3 jazzwaltz:JazzWaltz,JazzWaltz1*3
        fastjazzwaltz:FastJazzWaltz,FastJazzWaltz1*3 latinwaltz:LatinWaltz,LatinWaltzPlus*3
        rockwaltz:RockWaltz,RockWaltzWalk*3 broadwaywaltz:BroadwayWaltz,BroadwayWaltz1*3
        modernjazzwaltz:ModernJazzWaltz,ModernJazzWaltz1*3 casio/popwaltz:PopWaltz*3 casio/jazzwaltz:JazzWaltz*3
        yamaha/jazzwaltz:JazzWaltzMainA,JazzWaltzMainB*3
    """,
}
